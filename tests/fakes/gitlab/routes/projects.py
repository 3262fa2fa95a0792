"""Projects, groups, and what is in a repository."""

from tests.fakes.gitlab import diffs, entities
from tests.fakes.gitlab.errors import bad_request, invalid, not_found
from tests.fakes.gitlab.model import DEVELOPER, Group, Status
from tests.fakes.gitlab.project import Project
from tests.fakes.gitlab.repository import Repository
from tests.fakes.gitlab.routing import Answer, Call, pages, route

STATES = ("pending", "running", "success", "failed", "canceled", "skipped")


def _project(call: Call, one: Project) -> object:
    return entities.project(one, one.level(call.signed_in))


@route("GET", "/projects/:id")
def project(call: Call) -> Answer:
    return Answer(body=_project(call, call.project()))


@route("GET", "/projects")
def projects(call: Call) -> Answer:
    seen = [one for one in call.gitlab.projects.values() if call.may_see(one)]
    if call.params.flag("membership"):
        seen = [one for one in seen if one.level(call.user)]
    if least := call.params.integer("min_access_level"):
        seen = [one for one in seen if one.level(call.user) >= least]
    if word := call.params.text("search"):
        seen = [one for one in seen if word.lower() in one.path.lower()]
    return pages(reversed(seen), lambda one: _project(call, one))


def _group(call: Call) -> Group:
    key = call.path["id"]
    for one in call.gitlab.groups.values():
        if key in {str(one.id), one.path}:
            inside = [project for project in call.gitlab.projects.values() if one.path in project.group.parents]
            if call.user.admin or call.user.id in one.members or any(map(call.may_see, inside)):
                return one
    raise not_found("Group")


@route("GET", "/groups/:id")
def group(call: Call) -> Answer:
    return Answer(body=entities.group(call.gitlab, _group(call)))


@route("GET", "/groups/:id/projects")
def group_projects(call: Call) -> Answer:
    one = _group(call)
    deep = call.params.flag("include_subgroups")
    inside = (each for each in call.gitlab.projects.values() if each.group is one or one.path in each.group.parents)
    seen = [each for each in inside if call.may_see(each) and (deep or each.group is one)]
    archived = call.params.flag("archived")
    seen = [each for each in seen if archived in (None, each.archived)]
    return pages(reversed(seen), lambda each: _project(call, each))


# --- the repository


def _resolve(repository: Repository, ref: str) -> str:
    sha = repository.resolve(ref)
    if sha is None:
        raise not_found("Commit")
    return sha


def _blob(call: Call) -> tuple[str, str, tuple[str, bytes]]:
    one = call.project()
    ref = call.params.text("ref") or one.default_branch
    sha = one.repository.resolve(one.default_branch if ref == "HEAD" else ref)
    if sha is None:
        raise not_found("Commit")
    blob = one.repository.blob(sha, call.path["path"])
    if blob is None:
        raise not_found("File")
    return ref, sha, blob


@route("GET", "/projects/:id/repository/files/:path/raw")
@route("HEAD", "/projects/:id/repository/files/:path/raw")
def raw_file(call: Call) -> Answer:
    _, sha, blob = _blob(call)
    headers = {"X-Gitlab-Commit-Id": sha, "X-Gitlab-Size": str(len(blob[1])), "X-Gitlab-Blob-Id": blob[0]}
    return Answer(raw=blob[1], kind="text/plain", headers=headers)


@route("GET", "/projects/:id/repository/files/:path")
def file(call: Call) -> Answer:
    ref, sha, blob = _blob(call)
    return Answer(body=entities.file(call.path["path"], ref, sha, blob))


@route("GET", "/projects/:id/repository/compare")
def compare(call: Call) -> Answer:
    one = call.project()
    repository, params = one.repository, call.params
    first, last = _resolve(repository, params.need("from")), _resolve(repository, params.need("to"))
    straight = params.flag("straight") or False
    base = first if straight else repository.merge_base(first, last)
    if base is None:
        raise bad_request("the two commits have no common ancestor")
    commits = repository.commits(first, last)
    limits = call.gitlab.settings.limits
    changes = repository.diff(base, last)
    items = [diffs.item(change, limits, unified=params.flag("unidiff") or False) for change in changes]
    return Answer(
        body={
            "commit": entities.commit(one, commits[-1]) if commits else None,
            "commits": [entities.commit(one, commit) for commit in commits],
            "diffs": items[: limits.files],
            "compare_timeout": False,
            "compare_same_ref": first == last,
            "web_url": f"{one.web_url}/-/compare/{first}...{last}",
        }
    )


@route("GET", "/projects/:id/repository/merge_base")
def merge_base(call: Call) -> Answer:
    one = call.project()
    refs = call.params.texts("refs") or []
    if len(refs) != 2:  # GitLab takes more of them; nobody here needs that
        raise invalid("refs", "is invalid")
    first, last = (_resolve(one.repository, ref) for ref in refs)
    base = one.repository.merge_base(first, last)
    if base is None:
        raise not_found("Merge Base")
    return Answer(body=entities.commit(one, one.repository.commit_of(base)))


@route("GET", "/projects/:id/repository/commits/:sha")
def commit(call: Call) -> Answer:
    one = call.project()
    return Answer(body=entities.commit(one, one.repository.commit_of(_resolve(one.repository, call.path["sha"]))))


@route("GET", "/projects/:id/repository/branches/:branch")
def branch(call: Call) -> Answer:
    one = call.project()
    sha = one.head(call.path["branch"])
    if sha is None:
        raise not_found("Branch")
    name = call.path["branch"]
    return Answer(
        body={
            "name": name,
            "merged": False,
            "protected": name == one.default_branch,
            "default": name == one.default_branch,
            "developers_can_push": False,
            "developers_can_merge": False,
            "can_push": True,
            "web_url": f"{one.web_url}/-/tree/{name}",
            "commit": entities.commit(one, one.repository.commit_of(sha)),
        }
    )


# --- commit statuses


@route("POST", "/projects/:id/statuses/:sha")
def set_status(call: Call) -> Answer:
    one = call.project(DEVELOPER)
    params = call.params
    state = params.one_of("state", STATES) or params.need("state")
    sha = _resolve(one.repository, call.path["sha"])
    name = params.text("name") or params.text("context") or "default"
    ref = params.text("ref") or next((key for key, head in one.repository.heads().items() if head == sha), "")
    same = [each for each in one.statuses if (each.sha, each.name) == (sha, name)]
    known = next((each for each in same if each.state in {"pending", "running"}), None)
    if known is not None and known.state == state:
        raise bad_request(f"Cannot transition status via :{_event(state)} from :{state} (Reason(s): Status cannot "
                          f'transition via "{_event(state)}")')  # fmt: skip
    if known is not None:
        known.state, known.description = state, params.text("description")
        known.target_url = params.text("target_url") or known.target_url
    else:
        for each in same:
            one.statuses.remove(each)  # the newest of a name counts
        known = Status(call.gitlab.next_id("status", 90), sha, ref, name, state, call.user, call.gitlab.now())
        known.description, known.target_url = params.text("description"), params.text("target_url")
        one.statuses.append(known)
    return Answer(201, entities.status(call.gitlab, known))


def _event(state: str) -> str:
    return {"pending": "enqueue", "running": "run"}.get(state, state)


@route("GET", "/projects/:id/repository/commits/:sha/statuses")
def statuses(call: Call) -> Answer:
    one = call.project()
    sha = _resolve(one.repository, call.path["sha"])
    return pages([each for each in one.statuses if each.sha == sha], lambda each: entities.status(call.gitlab, each))
