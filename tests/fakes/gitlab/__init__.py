r"""A GitLab for tests and the demo: a real HTTP server over real git repositories, with GitLab's own rules.

    with serve() as gitlab:                                   # a free port; serve(root="/gitlab") for a relative root
        project = gitlab.project("team/tools/shop")           # the bot (gitlab.bot) is a Developer there
        alice = project.add_member("alice")
        project.push("main", {"pay.py": "a\nb\n"})
        project.push("fix", {"pay.py": "a\nc\n"}, user=alice) # branches off from main; force=True rewrites
        merge = project.open_merge_request("fix", title="Mend it", author=alice)
        bot = python_gitlab.Gitlab(gitlab.url, private_token=gitlab.bot_token)
        ...
        merge.discussions, merge.comment(alice, "hi"), merge.award(note, alice, "thumbsup"), merge.apply(note, alice)
        gitlab.settle()                                       # all hooks are delivered
        gitlab.count("GET", "/diffs$", user="apprentice")     # the request log

Hooks are made by the API (or `project.add_hook(url)`) and really POSTed (`tests.fakes.receiver` takes them);
`gitlab.hooks.copies` and `.repeat_share` repeat deliveries. `gitlab.settings` holds versions, editions and limits;
`gitlab.faults.add("reset_after", ...)` and `.chaos(0.2)` break things; `gitlab.meanwhile("GET", "/diffs$", action)`
does something behind the client's back; `gitlab.actions` lists every quick action that a note ran, and
`gitlab.notifications` every e-mail; `gitlab.advance(60)` lets time pass. `project.refresh()` notices what `git push`
brought to `project.folder`, also with `-o merge_request.create`; `python -m tests.fakes.gitlab` does so by itself.
"""

from tests.fakes.gitlab.merge import MergeRequest
from tests.fakes.gitlab.model import DEVELOPER, GUEST, MAINTAINER, OWNER, REPORTER, Hook, Note, Settings, Token, User
from tests.fakes.gitlab.project import Project
from tests.fakes.gitlab.server import serve
from tests.fakes.gitlab.state import GitLab

__all__ = [
    "DEVELOPER",
    "GUEST",
    "MAINTAINER",
    "OWNER",
    "REPORTER",
    "GitLab",
    "Hook",
    "MergeRequest",
    "Note",
    "Project",
    "Settings",
    "Token",
    "User",
    "serve",
]
