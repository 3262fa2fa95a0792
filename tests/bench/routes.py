"""Addresses of GitLab's API that only the other reviewers ask for: importing this adds them to the stand-in."""

from tests.fakes.gitlab.routing import Answer, Call, route


@route("GET", "/projects/:id/languages")
def languages(call: Call) -> Answer:
    """Share of each language, in percent."""
    call.project()
    return Answer(body={"Python": 100.0})


@route("GET", "/projects/:id/repository/tree")
def tree(call: Call) -> Answer:
    """The files and folders of one folder."""
    one, params = call.project(), call.params
    sha = one.repository.resolve(params.text("ref") or one.default_branch) or ""
    options = ["-r", "-t"] if params.flag("recursive") else []
    path = [f"{params.need('path').rstrip('/')}/"] if params.text("path") else []
    listed = one.repository.git("ls-tree", "-z", *options, sha, "--", *path).decode().split("\0")
    rows = [line.split(None, 3) for line in listed if line]
    entries = [
        {"id": number, "name": name.rpartition("/")[2], "type": kind, "path": name, "mode": mode}
        for mode, kind, number, name in rows
    ]
    return Answer(paged=[lambda entry=entry: entry for entry in entries])  # type: ignore[misc]
