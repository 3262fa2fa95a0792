"""A merge request on the GitLab stand-in and the bot's own way to it, for tests of `bot.gitlab`."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from bot.comment import render
from bot.diff import FileDiff
from bot.domain import Category, Finding, MergeRef, Severity
from bot.forge import Comment, MergeRequest
from bot.gitlab import GitLabForge
from bot.position import anchor
from tests.fakes import gitlab as stand_in
from tests.fakes.gitlab.repository import Content

LINES = "".join(f"line {number}\n" for number in range(1, 41))
CHANGED = LINES.replace("line 10\n", "LINE 10\nand more\nand more\n").replace("line 30\n", "")

OLD: dict[str, Content] = {"app.py": LINES, "other.py": LINES}
NEW: dict[str, Content] = {"app.py": CHANGED}


@dataclass
class World:
    """All of it."""

    gitlab: stand_in.GitLab
    project: stand_in.Project
    theirs: stand_in.MergeRequest
    alice: stand_in.User
    forge: GitLabForge

    @property
    def ref(self) -> MergeRef:
        return MergeRef(self.project.id, self.theirs.iid)

    @property
    def merge(self) -> MergeRequest:
        return self.forge.merge_request(self.ref)

    @property
    def bot(self) -> stand_in.User:
        return self.gitlab.bot

    def files(self) -> dict[str, FileDiff]:
        return {file.path: file for file in self.forge.read_change(self.merge).files}

    def comment(
        self, line: int = 11, first: int | None = None, file: str = "app.py", text: str = "and more"
    ) -> Comment:
        """A finding on some lines, as a review would post it."""
        return comment(self.files()[file], line, first, text)

    def notes(self) -> list[stand_in.Note]:
        """What the bot wrote, drafts not."""
        return [note for note in self.theirs.all_notes() if note.author is self.bot]

    def forget_requests(self) -> None:
        self.gitlab.requests.clear()

    def requests(self, method: str | None = None) -> list[str]:
        """What the bot asked, without the address of the merge request."""
        below = f"/projects/{self.project.id}/merge_requests/{self.theirs.iid}"
        asked = self.gitlab.logged(method)
        return [f"{request.method} {request.path.replace(below, '') or '/'}" for request in asked]


def comment(file: FileDiff, line: int, first: int | None = None, text: str = "and more") -> Comment:
    """A finding in a file's diff."""
    start = first or line
    finding = Finding(file.path, start, line, Severity.MAJOR, Category.CORRECTNESS, "A bug", "It is wrong.", text)
    return Comment(finding.fingerprint, render(finding), anchor(file, start, line))


@contextmanager
def world(
    new: Mapping[str, Content] = NEW, old: Mapping[str, Content] = OLD, *, root: str = "", seconds: float = 5
) -> Iterator[World]:
    """A merge request that changes these files, and a forge for it."""
    with stand_in.serve(root=root) as server:
        project = server.project("team/tools/shop")
        alice = project.add_member("alice")
        project.push("main", old)
        project.push("fix", new, user=alice)
        merge = project.open_merge_request("fix", title="Mend it", author=alice)
        forge = GitLabForge(server.url, server.bot_token, timeout_seconds=seconds)
        try:
            yield World(server, project, merge, alice, forge)
        finally:
            forge.close()
