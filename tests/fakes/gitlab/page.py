"""A merge request as a person sees it: the page behind its `web_url`, in plain text."""

from tests.fakes.gitlab.merge import MergeRequest
from tests.fakes.gitlab.model import Discussion, Note

_SHOWN = {"thumbsup": "👍", "thumbsdown": "👎"}


def render(merge: MergeRequest) -> str:
    """The title, the state and all threads, each at its file and line."""
    head = f"!{merge.iid} {merge.title}"
    about = (
        f"{merge.state} · {merge.author.name} wants to merge {merge.source_branch} into {merge.target_branch}"
        f" · {merge.changes_count} files · {len(merge.versions)} version{'' if len(merge.versions) == 1 else 's'}"
    )
    statuses = [f"status {one.name}: {one.state} ({one.description})" for one in merge.project.statuses
                if one.sha == merge.head]  # fmt: skip
    parts = [f"{head}\n{'=' * len(head)}", "\n".join((about, *statuses))]
    parts += [_thread(merge, one) for one in merge.discussions]
    return "\n\n".join(part for part in parts if part) + "\n"


def _thread(merge: MergeRequest, one: Discussion) -> str:
    lines = [f"── {_place(merge, one)}{' · resolved' if one.resolved else ''}"]
    for note in one.notes:
        lines.append(f"{note.author.name} (@{note.author.username}){' · internal' if note.internal else ''}:")
        lines += [f"    {line}".rstrip() for line in note.body.split("\n")]
        if note.awards:
            lines.append(f"    {_awards(note)}")
    return "\n".join(lines)


def _place(merge: MergeRequest, one: Discussion) -> str:
    position = one.notes[0].position
    if position is None:
        return "the system" if one.notes[0].system else "in general"
    path = position.new_path or position.old_path
    outdated = " · outdated" if position.refs != merge.refs or one.notes[0].change_position else ""
    if position.kind != "text":
        return f"{path}{outdated}"
    line = f"line {position.new_line}" if position.new_line else f"removed line {position.old_line}"
    return f"{path}, {line}{outdated}"


def _awards(note: Note) -> str:
    names = dict.fromkeys(award.name for award in note.awards)
    people = {name: ", ".join(award.user.username for award in note.awards if award.name == name) for name in names}
    return "  ".join(f"{_SHOWN.get(name, f':{name}:')} {who}" for name, who in people.items())
