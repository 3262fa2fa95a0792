"""What GitLab does with notes: checks, publishes, edits, resolves and awards them, and tells the hooks."""

import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tests.fakes.gitlab import payloads, quick_actions
from tests.fakes.gitlab.errors import Refused, bad_request, forbidden, not_found
from tests.fakes.gitlab.hooks import Chain
from tests.fakes.gitlab.model import DEVELOPER, Action, Award, Discussion, Draft, Note, Suggestion, User
from tests.fakes.gitlab.positions import Position, code_of, problems, ruby, trace

if TYPE_CHECKING:
    from tests.fakes.gitlab.merge import MergeRequest

MAX_NOTE = 1_000_000
_ALIASES = {"+1": "thumbsup", "-1": "thumbsdown", "👍": "thumbsup", "👎": "thumbsdown"}
_EMOJI = re.compile(r"[a-z0-9_+-]+")
_FENCE = re.compile(r"^(?P<fence>`{3,}|~{3,})suggestion(?::(?P<range>\S*))?[ \t]*$")
_RANGE = re.compile(r"(?:-(?P<above>\d+))?(?:\+(?P<below>\d+))?")


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a note: it stands there, or it held only quick actions."""

    note: Note | None
    actions: tuple[quick_actions.Found, ...] = ()


def write(
    merge: "MergeRequest",
    author: User,
    body: str,
    *,
    kind: str | None = "DiscussionNote",
    position: Position | None = None,
    discussion: Discussion | None = None,
    internal: bool = False,
    quiet: bool = False,
    chain: Chain | None = None,
) -> Written:
    """Make a note: in a thread, on a line, or alone (`kind` None); `quiet`: people are notified in another way.

    Raises:
        Refused: GitLab's validation does not like it.
    """
    text, actions = quick_actions.extract(body)
    code = change = None
    original = position
    if position is not None:
        kind = "DiffNote"
        position, change, code = _placed(merge, position)
        if errors := problems(position, code):
            raise bad_request(f"Note {ruby(errors)}")
    if len(text) > MAX_NOTE:
        raise bad_request('Note {:note=>["is too long (maximum is 1000000 characters)"]}')
    _run(merge, author, actions, chain)
    if not text.strip():
        if actions:
            return Written(None, actions)
        raise bad_request('Note {:note=>["can\'t be blank"]}')
    if discussion is not None:
        first = discussion.notes[0]
        if first.kind is None and not first.system:
            first.kind = "DiscussionNote"  # a note that stood alone becomes a thread
        kind, position, original, code = first.kind, first.position, first.original_position, first.line_code
        kind = kind or "DiscussionNote"
    now = merge.gitlab.now()
    note = Note(
        merge.gitlab.next_id("note", 5000),
        kind,
        author,
        text,
        now,
        now,
        internal=internal,
        position=position,
        original_position=original,
        change_position=change,
        line_code=code,
    )
    if discussion is None:
        discussion = Discussion(merge.gitlab.hex_id())
        merge.discussions.append(discussion)
    discussion.notes.append(note)
    note.suggestions = _suggestions(merge, note)
    merge.updated_at = now
    if not quiet:
        _notify(merge, f"note by {author.username}")
    _tell(merge, note, "create", author, chain)
    return Written(note, actions)


def _placed(merge: "MergeRequest", position: Position) -> tuple[Position, Position | None, str | None]:
    """Where a position stands today, where it last was if it is outdated, and its line code."""
    repository = merge.project.repository
    change = None
    if position.kind == "text" and position.refs != merge.refs and code_of(repository, position):
        traced = trace(repository, position, merge.refs)
        if traced.outdated:
            change = traced.position
        elif traced.position:
            position = traced.position
    return position, change, code_of(repository, position) if position.kind == "text" else None


def _run(merge: "MergeRequest", author: User, actions: tuple[quick_actions.Found, ...], chain: Chain | None) -> None:
    """Do what the quick actions say, as far as it shows here; all of them are written down."""
    for name, argument in actions:
        merge.gitlab.actions.append(Action(name, argument, author, merge.project.id, merge.iid))
        if name == "close" and merge.state == "opened":
            merge.close(author)
        elif name == "reopen" and merge.state == "closed":
            merge.reopen(author)
        elif name == "merge" and merge.state == "opened":
            merge.merge(author)
        elif name == "approve" and author not in merge.outcome.approvals:
            merge.approve(author, chain=chain)
        elif name == "title" and argument:
            merge.edit(author, title=argument, chain=chain)
        elif name in {"label", "labels"}:
            merge.edit(author, labels=[*merge.labels, *re.findall(r"~?([\w-]+)", argument)], chain=chain)


def _notify(merge: "MergeRequest", what: str) -> None:
    merge.gitlab.notifications.append((merge.project.id, merge.iid, what))


def _tell(merge: "MergeRequest", note: Note, action: str, actor: User, chain: Chain | None) -> None:
    event = "confidential_note_events" if note.internal else "note_events"
    make = partial(payloads.note_event, merge, note, action, actor)
    merge.gitlab.hooks.fire(merge.project.all_hooks(), event, make, chain=chain or Chain())


# --- drafts


def draft(
    merge: "MergeRequest",
    author: User,
    body: str,
    *,
    position: Position | None = None,
    discussion: str | None = None,
    resolve: bool = False,
    commit_id: str | None = None,
) -> Draft:
    """Keep a note for later. Its place is not checked: `line_code` is None where there is no such line."""
    if discussion is not None and any(one.discussion == discussion and one.author is author for one in merge.drafts):
        raise Refused(400, {"message": {"author_id": ["has already been taken"]}})
    made = Draft(merge.gitlab.next_id("draft", 300), author, body, discussion=discussion, resolve=resolve)
    made.commit_id = commit_id
    place(merge, made, position)
    merge.drafts.append(made)
    if merge.reviewers.get(author) == "unreviewed":
        merge.reviewers[author] = "review_started"
    return made


def place(merge: "MergeRequest", made: Draft, position: Position | None) -> None:
    text = position is not None and position.kind == "text"
    made.position = position
    made.line_code = code_of(merge.project.repository, position) if position is not None and text else None


def publish(merge: "MergeRequest", author: User, chosen: list[Draft], *, chain: Chain | None = None) -> None:
    """Turn drafts into notes, as one review. Those that are not valid vanish without a word.

    Raises:
        Refused: a 500 that a test asked for; some are notes already, and all drafts are still there.
    """
    chain = chain or Chain()
    faults = merge.gitlab.faults
    for done, one in enumerate(chosen):
        if faults.publish_breaks_after is not None and done >= faults.publish_breaks_after:
            faults.publish_breaks_after = None
            raise Refused(500, {})
        discussion = merge.discussion(one.discussion) if one.discussion else None
        try:
            place = _complete(one)
            written = write(merge, author, one.body, position=place, discussion=discussion, quiet=True, chain=chain)
        except Refused:
            continue
        if discussion and written.note:
            resolve(merge, discussion.notes, author, resolved=one.resolve, force=True)
    merge.drafts = [one for one in merge.drafts if one not in chosen]
    if chosen:
        _notify(merge, f"review by {author.username}")
        if author in merge.reviewers:
            merge.reviewers[author] = "reviewed"


def _complete(one: Draft) -> Position | None:
    """A draft whose position is not complete is published as a thread without a place."""
    return one.position if one.position and one.position.complete else None


# --- what is done with a note that stands there


def may_change(note: Note, user: User, level: int) -> bool:
    return note.author is user or user.admin or level >= 40


def edit(merge: "MergeRequest", note: Note, user: User, body: str, *, chain: Chain | None = None) -> Written:
    if not may_change(note, user, merge.project.level(user)):
        raise forbidden()
    text, actions = quick_actions.extract(body)
    _run(merge, user, actions, chain)
    if not text.strip():
        raise bad_request('Note {:note=>["can\'t be blank"]}')
    note.body, note.updated_at, note.updated_by = text, merge.gitlab.now(), user
    note.suggestions = _suggestions(merge, note)
    _tell(merge, note, "update", user, chain)
    return Written(note, actions)


def delete(merge: "MergeRequest", note: Note, user: User) -> None:
    if not may_change(note, user, merge.project.level(user)):
        raise forbidden()
    discussion = merge.discussion_of(note)
    discussion.notes.remove(note)
    if not discussion.notes:
        merge.discussions.remove(discussion)


def resolve(merge: "MergeRequest", chosen: list[Note], user: User, *, resolved: bool, force: bool = False) -> None:
    """Resolve notes, or take that back: for Developers and for the merge request's author."""
    if merge.project.level(user) < DEVELOPER and user is not merge.author and not force:
        raise forbidden()
    for note in chosen:
        if note.resolvable and bool(note.resolved_by) != resolved:
            note.resolved_by = user if resolved else None
            note.resolved_at = merge.gitlab.now() if resolved else None


def award(merge: "MergeRequest", note: Note, user: User, name: str, *, chain: Chain | None = None) -> Award:
    known = _ALIASES.get(name, name)
    if not _EMOJI.fullmatch(known):
        raise not_found("Award Emoji Name is not a valid emoji name")
    if any(one.user is user and one.name == known for one in note.awards):
        raise not_found("Award Emoji Name has already been taken")
    given = Award(merge.gitlab.next_id("award", 700), known, user, merge.gitlab.now())
    note.awards.append(given)
    _tell_emoji(merge, note, given, "award", chain)
    return given


def revoke(merge: "MergeRequest", note: Note, given: Award, *, chain: Chain | None = None) -> None:
    note.awards.remove(given)
    _tell_emoji(merge, note, given, "revoke", chain)


def _tell_emoji(merge: "MergeRequest", note: Note, given: Award, action: str, chain: Chain | None) -> None:
    make = partial(payloads.emoji_event, merge, note, given, action)
    merge.gitlab.hooks.fire(merge.project.all_hooks(), "emoji_events", make, chain=chain or Chain())


# --- suggestions


def _suggestions(merge: "MergeRequest", note: Note) -> list[Suggestion]:
    """Those in a note on a line that is in the new file."""
    position = note.position
    if position is None or position.kind != "text" or position.new_line is None or position.new_path is None:
        return []
    blob = merge.project.repository.blob(position.refs.head, position.new_path)
    if blob is None:
        return []
    lines = blob[1].decode(errors="replace").splitlines(keepends=True)
    found = []
    for text, above, below in _blocks(note.body):
        first, last = max(1, position.new_line - min(above, 100)), min(len(lines), position.new_line + min(below, 100))
        around = (position.new_line - first, last - position.new_line)
        old = "".join(lines[first - 1 : last])
        end = "\n" if old.endswith("\n") else ""
        new = text + end if text.strip() else ""
        found.append(Suggestion(merge.gitlab.next_id("suggestion", 900), note, *around, old, new))
    return found


def _blocks(body: str) -> list[tuple[str, int, int]]:
    """The text of each suggestion block, with the lines above and below that it replaces too."""
    blocks = []
    lines = iter(body.split("\n"))
    for line in lines:
        if head := _FENCE.match(line):
            fence = head["fence"]
            end = re.compile(rf"{fence[0]}{{{len(fence)},}}[ \t]*")
            text = []
            for inner in lines:
                if end.fullmatch(inner):
                    break
                text.append(inner)
            around = _RANGE.fullmatch(head["range"] or "")
            above, below = (int(around[side] or 0) if around else 0 for side in ("above", "below"))
            blocks.append(("\n".join(text), above, below))
    return blocks


def appliable(merge: "MergeRequest", suggestion: Suggestion) -> bool:
    """GitLab applies one that is not applied yet, on the newest lines, and only if it changes something."""
    position = suggestion.note.position
    fresh = position is not None and position.refs == merge.refs and suggestion.note.change_position is None
    changes = suggestion.from_content != suggestion.to_content
    return not suggestion.applied and fresh and merge.state == "opened" and changes


def apply(merge: "MergeRequest", suggestion: Suggestion, user: User, message: str | None = None) -> str:
    """Commit a suggestion to the source branch; returns the commit's SHA."""
    if not appliable(merge, suggestion):
        raise Refused(400, {"message": "A suggestion is not applicable."})
    position = suggestion.note.position
    assert position is not None
    assert position.new_path is not None
    blob = merge.project.repository.blob(merge.head, position.new_path)
    assert blob is not None
    lines = blob[1].decode(errors="surrogateescape").splitlines(keepends=True)
    lines[suggestion.from_line - 1 : suggestion.to_line] = [suggestion.to_content]
    content = "".join(lines).encode(errors="surrogateescape")
    suggestion.applied = True
    resolve(merge, merge.discussion_of(suggestion.note).notes, user, resolved=True, force=True)
    said = message or "Apply 1 suggestion(s) to 1 file(s)"
    return merge.source_project.push(merge.source_branch, {position.new_path: content}, message=said, user=user)
