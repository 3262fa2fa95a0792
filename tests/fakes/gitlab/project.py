"""A project with a real repository, and what happens when somebody pushes to it."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fakes.gitlab import payloads
from tests.fakes.gitlab.hooks import Chain
from tests.fakes.gitlab.merge import MergeRequest, Opening
from tests.fakes.gitlab.model import DEVELOPER, Group, Hook, Status, Token, User
from tests.fakes.gitlab.repository import Content, Repository

if TYPE_CHECKING:
    from tests.fakes.gitlab.state import GitLab

ZERO = "0" * 40
PUSH_HOOK_LIMIT = 3

POST_RECEIVE = """#!/bin/sh
# tells the stand-in what was pushed, with the push options
{
  i=0
  while [ "$i" -lt "${GIT_PUSH_OPTION_COUNT:-0}" ]; do
    eval "printf 'option %s\\n' \\"\\$GIT_PUSH_OPTION_$i\\""
    i=$((i + 1))
  done
  sed 's/^/ref /'
} > "$GIT_DIR/pushed.$$.new"
mv "$GIT_DIR/pushed.$$.new" "$GIT_DIR/pushed.$$"
"""


class Project:
    """A project of the server."""

    def __init__(self, gitlab: "GitLab", number: int, path: str, group: Group, folder: Path, *, private: bool) -> None:
        self.gitlab, self.id, self.path, self.group, self.private = gitlab, number, path, group, private
        self.name = path.rpartition("/")[2]
        self.description = ""
        self.default_branch = "main"
        self.archived = False
        self.created_at = gitlab.now()
        self.repository = Repository(folder)
        self.members: dict[int, int] = {}
        self.merges: dict[int, MergeRequest] = {}
        self.hooks: list[Hook] = []
        self.statuses: list[Status] = []
        self.forked_from: Project | None = None
        self._heads: dict[str, str] = {}
        (folder / "hooks").mkdir()
        hook = folder / "hooks" / "post-receive"
        hook.write_text(POST_RECEIVE)
        hook.chmod(0o755)

    @property
    def folder(self) -> Path:
        """The bare repository: `git push` to it, and then `refresh`."""
        return self.repository.path

    @property
    def web_url(self) -> str:
        return f"{self.gitlab.own_url}/{self.path}"

    # --- people

    def add_member(self, user: User | str, level: int = DEVELOPER) -> User:
        member = self.gitlab.user(user) if isinstance(user, str) else user
        self.members[member.id] = level
        return member

    def level(self, user: User | None) -> int:
        """A user's level, that of the groups around included; 0: no member."""
        if user is None:
            return 0
        groups = (self.gitlab.groups[path] for path in self.group.parents)
        levels = [self.members.get(user.id, 0), *(group.members.get(user.id, 0) for group in groups)]
        return max(levels)

    def all_hooks(self) -> list[Hook]:
        """Those of the project and of the groups around it."""
        groups = [self.gitlab.groups[path] for path in self.group.parents]
        return [*self.hooks, *(hook for group in groups for hook in group.hooks)]

    # --- making changes

    def push(
        self,
        branch: str,
        files: Mapping[str, Content],
        *,
        force: bool = False,
        message: str | None = None,
        user: User | str | None = None,
        start: str | None = None,
    ) -> str:
        """Put a commit on a branch with git, as one push; returns its SHA.

        Args:
            branch: made from `start` (a branch or SHA; the default branch) when it is not there.
            files: new contents by path; None deletes.
            force: rewrite: the commit replaces the branch's last one, which then is no ancestor.
            message: of the commit.
            user: who pushes; the default is the first member who is no bot.
            start: as above.
        """
        with self.gitlab.lock:
            person = self._person(user)
            tip = self.head(branch)
            parent = tip or self.repository.resolve(start or self.default_branch)
            content = dict(files)
            if force and tip:
                old = self.repository.commit_of(tip)
                parent = old.parents[0] if old.parents else None
                kept = {} if parent is None else self._changed(parent, tip)
                content = kept | content
            said = message or f"Change {', '.join(content) or 'nothing'}"
            when = int(self.gitlab.now().timestamp())
            author = f"{person.name} <{person.email}>"
            sha = self.repository.commit(branch, content, message=said, author=author, when=when, parent=parent)
            self._moved({branch: (tip, sha)}, person)
            return sha

    def push_commit(self, branch: str, sha: str, *, user: User | str | None = None) -> None:
        """Let a branch point at a commit that is there already, as one push."""
        with self.gitlab.lock:
            old = self.head(branch)
            self.repository.point(f"refs/heads/{branch}", sha)
            self._moved({branch: (old, sha)}, self._person(user))

    def head(self, branch: str) -> str | None:
        return self._heads.get(branch)

    def refresh(self) -> None:
        """Notice what was pushed to the folder with git, its push options too."""
        with self.gitlab.lock:
            notes = sorted(self.folder.glob("pushed.*[0-9]"))
            heads = self.repository.heads()
            names = {*heads, *self._heads}
            moved = {name: (self._heads.get(name), heads.get(name)) for name in names}
            moved = {name: pair for name, pair in moved.items() if pair[0] != pair[1]}
            if moved:
                shas = [new for _, new in moved.values() if new]
                self._moved(moved, self._author(shas[0]) if shas else self._person(None))
            for note in notes:
                self._read_push(note.read_text())
                note.unlink()

    def open_merge_request(
        self,
        source: str,
        target: str | None = None,
        title: str | None = None,
        *,
        draft: bool = False,
        description: str = "",
        author: User | str | None = None,
        source_project: "Project | None" = None,
        reviewers: tuple[User, ...] = (),
    ) -> MergeRequest:
        """Open a merge request from one branch into another; both must be there."""
        with self.gitlab.lock:
            opening = Opening(
                author=self._person(author),
                title=("Draft: " if draft else "") + (title or source.replace("-", " ").capitalize()),
                description=description,
                source_project=source_project or self,
                source_branch=source,
                target_branch=target or self.default_branch,
                reviewers=reviewers,
            )
            iid = len(self.merges) + 1
            merge = MergeRequest(self, self.gitlab.next_id("merge", 100), iid, opening)
            self.merges[iid] = merge
            merge.announce("open", payloads.opened(merge), user=merge.author)
            return merge

    def fork(self, path: str) -> "Project":
        """A copy with all branches; merge requests from there come by `source_project`. The bot is no member."""
        with self.gitlab.lock:
            copy = self.gitlab.project(path, bot_level=None, private=self.private)
            copy.forked_from, copy.default_branch = self, self.default_branch
            copy.repository.git("fetch", "--quiet", str(self.folder), "+refs/heads/*:refs/heads/*")
            copy._heads = copy.repository.heads()
            return copy

    def add_hook(
        self,
        url: str,
        *,
        events: Sequence[str] = ("merge_requests_events", "note_events", "emoji_events"),
        token: str | None = None,
        signing_token: str | None = None,
    ) -> Hook:
        """Hang up a hook, as somebody did by hand."""
        gitlab = self.gitlab
        made = Hook(gitlab.next_id("hook"), url, gitlab.now(), self.id, None, dict.fromkeys(events, True))
        made.token, made.signing_token = token, signing_token
        self.hooks.append(made)
        return made

    def warn_of_expiry(self, token: Token) -> None:
        """Fire the event that a token expires soon."""
        day = token.expires_on.isoformat() if token.expires_on else ""
        make = partial(payloads.token_expires, self, token.user, token.name, day)
        self.gitlab.hooks.fire(self.all_hooks(), "resource_access_token_events", make, chain=Chain())

    # --- what pushes cause

    def _person(self, user: User | str | None) -> User:
        if user is not None:
            return self.gitlab.user(user) if isinstance(user, str) else user
        for number in self.members:
            member = self.gitlab.users[number]
            if not member.bot and not member.admin:
                return member
        return self.add_member("dev")

    def _author(self, sha: str) -> User:
        email = self.repository.commit_of(sha).author_email
        known = (user for user in self.gitlab.users.values() if user.email == email)
        return next(known, None) or self._person(None)

    def _changed(self, base: str, head: str) -> dict[str, Content]:
        files: dict[str, Content] = {}
        for change in self.repository.diff(base, head):
            if not change.new_file:
                files[change.old_path] = None
            blob = self.repository.blob(head, change.new_path)
            if blob and not change.deleted_file:
                files[change.new_path] = (change.b_mode, blob[1])
        return files

    def _moved(self, moved: Mapping[str, tuple[str | None, str | None]], user: User) -> None:
        """Branches moved, by one push: versions, positions, hooks. Old SHA None: a new branch; new None: deleted."""
        chain = Chain()
        for branch, (_, new) in moved.items():
            if new:
                self._heads[branch] = new
            else:
                self._heads.pop(branch, None)
        if len(moved) <= PUSH_HOOK_LIMIT:
            for branch, (old, new) in moved.items():
                make = partial(payloads.pushed, self, branch, old or ZERO, new or ZERO, user)
                self.gitlab.hooks.fire(self.all_hooks(), "push_events", make, chain=chain)
        for project in self.gitlab.projects.values():
            for merge in project.merges.values():
                pair = moved.get(merge.source_branch)
                if merge.source_project is self and merge.state == "opened" and pair and pair[1]:
                    merge.pushed(pair[1], user, chain)

    def _read_push(self, told: str) -> None:
        lines = [line.partition(" ") for line in told.splitlines()]
        options = dict(line.partition("=")[::2] for key, _, line in lines if key == "option")
        refs = [line.split(" ") for key, _, line in lines if key == "ref"]
        if "merge_request.create" not in options:
            return
        for _, new, ref in refs:
            branch = ref.removeprefix("refs/heads/")
            taken = (merge.source_branch for merge in self.merges.values() if merge.state == "opened")
            if new == ZERO or branch in taken or branch == self.default_branch:
                continue
            title = options.get("merge_request.title") or self.repository.commit_of(new).title
            self.open_merge_request(
                branch,
                options.get("merge_request.target"),
                title,
                description=options.get("merge_request.description", ""),
                draft="merge_request.draft" in options,
                author=self._author(new),
            )
