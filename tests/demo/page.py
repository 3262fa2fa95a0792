"""A merge request's discussion as a person sees it in GitLab: read over the API, and shown in the terminal."""

import re
from datetime import datetime
from typing import Literal

import httpx2
from pydantic import BaseModel, TypeAdapter
from rich.console import Console
from rich.markdown import Markdown
from rich.padding import Padding
from rich.text import Text

from bot.comment import parse_marker
from bot.domain import Finding
from bot.forge import SUMMARY_MARKER
from bot.terminal import printable_lines

_EMOJI = {"thumbsup": "👍", "thumbsdown": "👎"}
_UNSEEN = re.compile(r"<!--.*?-->|\u2060", re.DOTALL)  # a browser shows neither
_SUGGESTION = re.compile(r"^(`{3,})suggestion:\S*$", re.MULTILINE)  # a button in the browser
_TAGS = re.compile(r"</?(?:sub|details|summary)>")


class Author(BaseModel):
    """Who wrote a note or gave an emoji."""

    username: str
    name: str


class Position(BaseModel):
    """Where a note stands in the diff."""

    new_path: str
    old_path: str
    new_line: int | None = None
    old_line: int | None = None
    position_type: Literal["text", "image", "file"] = "text"


class Award(BaseModel):
    """An emoji below a note."""

    name: str
    user: Author


class Note(BaseModel):
    """One note, with the emoji below it."""

    id: int
    body: str
    author: Author
    system: bool
    created_at: datetime
    resolved: bool = False
    position: Position | None = None
    awards: tuple[Award, ...] = ()

    @property
    def finding(self) -> Finding | None:
        """What of the bot's stands in it."""
        return parse_marker(self.body)

    @property
    def summary(self) -> bool:
        """Whether it is the bot's summary."""
        return self.body.rstrip().endswith(SUMMARY_MARKER)


class Thread(BaseModel):
    """A discussion."""

    notes: tuple[Note, ...]

    @property
    def first(self) -> Note:
        """What it began with."""
        return self.notes[0]


class MergeRequest(BaseModel):
    """A merge request, without its discussion."""

    iid: int
    title: str
    state: str
    source_branch: str
    target_branch: str
    sha: str
    web_url: str
    author: Author


_MERGES = TypeAdapter(tuple[MergeRequest, ...])
_THREADS = TypeAdapter(tuple[Thread, ...])
_AWARDS = TypeAdapter(tuple[Award, ...])


class Person:
    """Somebody who uses GitLab's API in one project.

    Args:
        url: of GitLab.
        token: theirs.
        project: its number.
    """

    def __init__(self, url: str, token: str, project: int) -> None:
        self._project = f"{url}/api/v4/projects/{project}"
        # never through a proxy of the environment: it is on this machine
        self._client = httpx2.Client(headers={"private-token": token}, trust_env=False, timeout=30)

    def _get(self, path: str, **more: str) -> bytes:
        said = self._client.get(f"{self._project}{path}", params={"per_page": "100"} | more)
        return said.raise_for_status().content

    def merge_request(self) -> MergeRequest | None:
        """The newest one, if there is one."""
        found = _MERGES.validate_json(self._get("/merge_requests", order_by="created_at"))
        return found[0] if found else None

    def threads(self, iid: int) -> tuple[Thread, ...]:
        """What people and the bot say there; GitLab's own lines are left out."""
        threads = _THREADS.validate_json(self._get(f"/merge_requests/{iid}/discussions"))
        for note in (note for thread in threads for note in thread.notes if note.finding):
            note.awards = _AWARDS.validate_json(self._get(f"/merge_requests/{iid}/notes/{note.id}/award_emoji"))
        return tuple(thread for thread in threads if not thread.first.system)

    def hang_up_hook(self, url: str, secret: str) -> None:
        """Make a webhook by hand: stands here until `apprentice connect` does."""
        events = dict.fromkeys(("merge_requests_events", "note_events", "emoji_events"), True)
        self._client.post(f"{self._project}/hooks", json={"url": url, "token": secret} | events).raise_for_status()

    def give(self, iid: int, note: int, emoji: str) -> None:
        """Give a note an emoji."""
        path = f"{self._project}/merge_requests/{iid}/notes/{note}/award_emoji"
        self._client.post(path, json={"name": emoji}).raise_for_status()


def show(merge: MergeRequest, threads: tuple[Thread, ...], console: Console) -> None:
    """Print the page: the merge request's title, the bot's summary, and each thread at its place."""
    console.rule(Text(f"!{merge.iid} {merge.title}", "bold"), align="left")
    words = f"{merge.state} · {merge.author.name} wants to merge {merge.source_branch} into {merge.target_branch}"
    console.print(Text(f"{words} · {merge.web_url}", "dim"))
    for thread in sorted(threads, key=_order):
        console.print()
        _show_thread(thread, console)
    console.rule()


def _order(thread: Thread) -> tuple[bool, str, int]:
    position = thread.first.position
    return position is not None, position.new_path if position else "", (position and position.new_line) or 0


def _show_thread(thread: Thread, console: Console) -> None:
    resolved = thread.first.resolved
    console.print(Text.assemble((place(thread.first), "bold cyan"), (" · resolved ✓" if resolved else "", "green")))
    for number, note in enumerate(thread.notes):
        indent = 2 if number == 0 else 6
        author = Text.assemble((note.author.name, "bold"), (f" @{note.author.username}", "dim"))
        console.print(Padding(author, (0, 0, 0, indent)))
        if note.system:
            console.print(Padding(Text(note.body, "dim"), (0, 0, 0, indent)))
        else:
            console.print(Padding(Markdown(seen(note.body), code_theme="ansi_dark"), (0, 0, 0, indent)))
        if note.awards:
            console.print(Padding(emoji_line(note), (0, 0, 0, indent)))


def place(note: Note) -> str:
    """Where a note stands, in words."""
    position = note.position
    if position is None:
        return "On the merge request"
    if position.new_line:
        return f"{position.new_path}, line {position.new_line}"
    if position.old_line:
        return f"{position.old_path}, removed line {position.old_line}"
    return position.new_path


def seen(body: str) -> str:
    """Markdown without what a browser does not show, and safe for a terminal."""
    text = _SUGGESTION.sub(r"*Suggested change, applied by a click:*\n\n\1", _UNSEEN.sub("", body))
    return printable_lines(_TAGS.sub("", text).strip())


def emoji_line(note: Note) -> str:
    """The emoji below a note with their givers, as `👍 2 (alice, bob)`."""
    givers: dict[str, list[str]] = {}
    for award in note.awards:
        givers.setdefault(award.name, []).append(award.user.username)
    return "   ".join(
        f"{_EMOJI.get(name, f':{name}:')} {len(users)} ({', '.join(users)})" for name, users in givers.items()
    )
