"""Which lines of a note GitLab takes for quick actions.

Two ways of finding them are known: by one pattern over the text (long in use), and within the Markdown paragraphs
that stand at the top level (newer). What either would run counts here: a note is only safe if it is for both.
"""

import re
from collections.abc import Iterator

from markdown_it import MarkdownIt

NAMES = tuple(
    """
    add_child add_contacts add_email approve assign assign_reviewer award blocked_by blocks board_move cc
    checkin_reminder child_epic clear_health_status clear_weight clone close confidential convert_to_ticket
    copy_metadata create_merge_request done draft due duplicate epic estimate estimate_time health_status invite_email
    iteration label labels link lock merge milestone move page parent_epic promote promote_to promote_to_incident
    publish q react ready reassign reassign_reviewer rebase relabel relate remove_child remove_child_epic
    remove_contacts remove_due_date remove_email remove_epic remove_estimate remove_iteration remove_label
    remove_milestone remove_parent remove_parent_epic remove_reviewer remove_time_estimate remove_time_spent
    remove_zoom reopen request_changes request_review reviewer set_parent severity ship shrug spend spend_time status
    submit_review subscribe tableflip tag target_branch timeline title todo type unapprove unassign unassign_reviewer
    unlabel unlink unlock unsubscribe weight wip zoom
    """.split()
)
"""The documented quick actions of the last years, with their other names."""

_FLAGS = re.MULTILINE | re.DOTALL | re.IGNORECASE
_COMMAND = rf"^/(?P<cmd>{'|'.join(NAMES)})(?:[ ](?P<arg>[^\n]*))?(?:[ \t\r\n\f\v]*\n|$)"
_HTML = r"^<[^>]+?>\n.+?\n</[^>]+?>$"
_ANYWHERE = (
    r"^```.+?\n```$",  # in a code block: the fence must be of three
    r"^.*`\n*.+?\n*`$",  # in code over several lines
    _HTML,
    r"^>>>.+?\n>>>$",
)
_WHOLE = re.compile("|".join((*_ANYWHERE, _COMMAND)), _FLAGS)
_PARAGRAPH = re.compile(rf"`.+?`|{_HTML}|{_COMMAND}", _FLAGS)

_FENCE = re.compile(r" {0,3}(`{3,}(?=[^`]*$)|~{3,})")
_QUOTE = re.compile(r" {0,3}(>{3,})[ \t]*(?:\[![a-z]+\].*)?", re.IGNORECASE)
_MARKDOWN = MarkdownIt("commonmark").enable("table")

Found = tuple[str, str]
"""A quick action's name and its argument."""


def extract(body: str) -> tuple[str, tuple[Found, ...]]:
    """What is left of a note, and the quick actions that were in it."""
    found: list[Found] = []

    def take(match: re.Match[str]) -> str:
        if not match["cmd"]:
            return match[0]
        found.append((match["cmd"].lower(), (match["arg"] or "").strip()))
        return ""

    text = _WHOLE.sub(take, body.replace("\r", ""))
    lines = text.split("\n")
    for first, end in reversed(list(_paragraphs(lines))):
        lines[first:end] = _PARAGRAPH.sub(take, "\n".join(lines[first:end])).split("\n")
    return "\n".join(lines).rstrip(), tuple(found)


def _paragraphs(lines: list[str]) -> Iterator[tuple[int, int]]:
    """The line ranges of the paragraphs at the top level."""
    for token in _MARKDOWN.parse("\n".join(_without_quotes(lines))):
        if token.type == "paragraph_open" and token.level == 0 and token.map:
            yield token.map[0], token.map[1]


def _without_quotes(lines: list[str]) -> Iterator[str]:
    """The lines, empty where they are in a block quote between lines of `>>>`, which only GitLab knows."""
    fence = quote = ""
    for line in lines:
        mark = _FENCE.match(line)
        edge = _QUOTE.fullmatch(line)
        if quote:
            if edge and len(edge[1]) >= len(quote) and line.strip() == edge[1]:
                quote = ""
            yield ""
        elif fence:
            if mark and mark[1].startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
            yield line
        elif edge:
            quote = edge[1]
            yield ""
        else:
            fence = mark[1] if mark else ""
            yield line
