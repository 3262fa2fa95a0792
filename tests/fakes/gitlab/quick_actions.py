"""Which lines of a note GitLab takes for quick actions.

Two ways of finding them are known: by one pattern over the text (long in use), and by the Markdown paragraphs that
stand at the top level (newer). What either would run counts here, so that a note is only safe if it is for both.
"""

import re

from markdown_it import MarkdownIt

NAMES = tuple(
    """
    add_child add_contacts add_email approve assign assign_reviewer award blocked_by blocks cc checkin_reminder
    child child_epic clear_health_status clear_weight clone close confidential convert_to_ticket copy_metadata
    create_merge_request done draft due duplicate epic estimate estimate_time health_status include_labels
    invite_email iteration label labels link lock merge milestone move page parent_epic promote promote_to
    promote_to_incident promote_to_objective publish q react ready reassign reassign_reviewer rebase relabel
    relate remove_child remove_child_epic remove_contacts remove_due_date remove_email remove_epic
    remove_estimate remove_iteration remove_iteration_cadence remove_label remove_milestone remove_parent
    remove_parent_epic remove_reviewer remove_time_estimate remove_time_spent remove_zoom reopen request_changes
    request_review reviewer set_parent severity ship shrug spend spend_time spent status submit_review subscribe
    tableflip tag target_branch timeline title todo type unapprove unassign unassign_reviewer unlabel unlink
    unlock unsubscribe weight work_item wip zoom
    """.split()
)
"""The documented quick actions with their other names."""

_NAMES = "|".join(sorted(set(NAMES), key=len, reverse=True))
_BLANK = "[ \t\r\n\f\v]"
_COMMAND = rf"^/(?P<cmd>{_NAMES})(?:[ ](?P<arg>[^\n]*))?(?:{_BLANK}*\n|$)"
_SKIPPED = (
    r"^```.+?\n```$",  # a code block
    r"^.*`\n*.+?\n*`$",  # inline code on lines of its own
    r"^<[^>]+?>\n.+?\n</[^>]+?>$",  # an HTML block
    r"^>>>.+?\n>>>$",  # a quote block
)
_WHOLE = re.compile("|".join((*_SKIPPED, _COMMAND)), re.MULTILINE | re.DOTALL | re.IGNORECASE)
_LINE = re.compile(_COMMAND, re.MULTILINE | re.DOTALL | re.IGNORECASE)
_MARKDOWN = MarkdownIt("commonmark").enable("table")

Found = tuple[str, str]
"""A quick action's name and its argument."""


def extract(body: str) -> tuple[str, tuple[Found, ...]]:
    """What is left of a note, and the quick actions that were in it."""
    text = body.replace("\r", "")
    found: list[Found] = []

    def take(match: re.Match[str]) -> str:
        if not match["cmd"]:
            return match[0]
        found.append((match["cmd"].lower(), (match["arg"] or "").strip()))
        return ""

    text = _WHOLE.sub(take, text)
    for first, end in reversed(_paragraphs(text)):
        lines = text.split("\n")
        kept = _LINE.sub(take, "\n".join(lines[first:end]))
        text = "\n".join((*lines[:first], kept, *lines[end:]))
    return (text.rstrip(), tuple(found)) if found else (body, ())


def _paragraphs(text: str) -> list[tuple[int, int]]:
    """The line ranges of the paragraphs at the top level of a Markdown text."""
    tokens = _MARKDOWN.parse(text)
    return [(one.map[0], one.map[1]) for one in tokens if one.type == "paragraph_open" and not one.level and one.map]
