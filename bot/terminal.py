"""A review as a person reads it in the terminal, and the progress line while it is made.

Titles, explanations, code and file names come from a model and from a stranger's diff. Every one of them goes
through `printable`, so that no escape sequence and no character that reorders text reaches the terminal.
Nothing is read as rich markup.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence

from rich.cells import chop_cells
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from bot.domain import HiddenReason, Judged, NotRead, Review, Severity
from bot.report import (
    cost_words,
    count_words,
    hidden_words,
    place,
    printable,
    redacted_words,
    severity_words,
    skipped_by_reason,
    source_words,
    text_lines,
)

__all__ = ["Step", "printable", "printable_lines", "progress", "render", "stdout_console"]

PIPE_WIDTH = 100  # columns when the output is no terminal
LIST_LIMIT = 10  # entries of a list before the rest is only counted
QUOTE_LIMIT = 20  # lines of a quote before the rest is only counted

_LEAST_WIDTH = 20  # columns for text, however narrow the terminal is
_GUTTER_WIDTH = 8
_JOINERS = "\u200c\u200d"  # invisible and not printable for Python, but Persian, Indic scripts and emoji need them
_STYLE = {
    Severity.CRITICAL: "bold red",
    Severity.MAJOR: "bold yellow",
    Severity.MINOR: "bold cyan",
    Severity.TRIVIAL: "bold blue",
}

Step = Callable[[int, int, str], None]  # done, total, what is being done


def printable_lines(text: str) -> str:
    """The text with each of its lines `printable`."""
    return "\n".join(printable(line) for line in text_lines(text))


def stdout_console() -> Console:
    """A console for `render`: coloured on a terminal unless NO_COLOR is set, plain and 100 wide in a pipe."""
    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)


def render(review: Review, *, show_hidden: bool, console: Console) -> None:
    """Print the review: findings worst first, what is hidden, what was not read, what it cost."""
    page = _Page(console)
    for judged in review.findings:
        if judged.shown:
            page.finding(judged)
    hidden = [judged for judged in review.findings if not judged.shown]
    if show_hidden and hidden:
        page.write(("Hidden findings", "bold"))
        page.write()
        for judged in hidden:
            page.finding(judged)
    page.summary(review)
    page.not_read(review.not_read)
    page.write()
    if redacted := redacted_words(review):
        page.write((f"{redacted}.", ""))
    page.write((cost_words(review), "dim"))
    page.write((source_words(review), "dim"))


class _Page:
    """Writes the parts of a review to a console; no text reaches it another way."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def finding(self, judged: Judged) -> None:
        finding = judged.finding
        sure = "" if finding.confidence is None else f"  {finding.confidence:.0%} sure"
        dim = "" if judged.shown else "dim "
        self.write(
            (place(finding), f"{dim}bold"),
            ("  ", ""),
            (str(finding.severity), dim or _STYLE[finding.severity]),
            (f"  {finding.category}{sure}", dim),
        )
        if judged.hidden:
            self.write((f"hidden: {judged.hidden.words}", dim), indent=2)
        self.write((finding.title, f"{dim}bold"), indent=2)
        for line in text_lines(finding.explanation):
            self.write((line, dim), indent=2)
        self._code(_numbered_quote(judged), dim)
        if finding.suggestion is not None:
            self.write(("suggestion:", dim), indent=2)
            self._code([("+", line) for line in text_lines(finding.suggestion)], dim or "green")
        self.write()

    def summary(self, review: Review) -> None:
        shown, read = review.shown, count_words(len(review.read), "file")
        words = "No findings"
        if shown:
            words = f"{count_words(len(shown), 'finding')} shown ({severity_words(shown)})"
        elif review.findings:
            words = "No findings shown"
        if hidden := hidden_words(review):
            words += f", {len(review.findings) - len(shown):,} hidden: {hidden}"
        self.write((f"{words}.", "bold"))
        if shown:
            self.write((f"The student read {read}.", ""))
        elif review.read:
            self.write((f"The student read {read}: {_list(review.read)}.", ""))
        elif review.not_read:
            self.write(("The student read nothing of this change.", ""))
        else:
            self.write(("There is nothing to review: the change is empty.", ""))

    def not_read(self, missing: Sequence[NotRead]) -> None:
        failed = [f"! {part.file}: {part.reason}" for part in missing if part.failed]
        if failed:
            parts = count_words(len(failed), "part")
            self.write((f"! This review is incomplete: {parts} of the change could not be read.", "bold red"))
            self._entries(failed)
        skipped = skipped_by_reason(missing)
        if skipped:
            self.write((f"Not read, on purpose ({len(missing) - len(failed):,}):", ""))
            self._entries([f"{reason}: {_list(files)}" for reason, files in skipped.items()])

    def _entries(self, entries: Sequence[str]) -> None:
        for entry in entries[:LIST_LIMIT]:
            self.write((entry, ""), indent=2)
        if len(entries) > LIST_LIMIT:
            self.write((f"and {len(entries) - LIST_LIMIT:,} more; --format json lists them all", ""), indent=2)

    def write(self, *parts: tuple[str, str], indent: int = 0) -> None:
        """Print (text, style) pairs as one line, wrapped at the console's width."""
        whole = Text.assemble(*((printable(text), style) for text, style in parts))
        for line in whole.wrap(self._console, self._room(indent)):
            self._put(Text(" " * indent) + line)

    def _code(self, lines: Sequence[tuple[str, str]], style: str) -> None:
        """Print (gutter, code) pairs; code wider than the console goes on below, without a gutter."""
        for gutter, code in lines:
            for number, piece in enumerate(chop_cells(printable(code), self._room(_GUTTER_WIDTH + 3)) or [""]):
                mark = "" if number else gutter
                self._put(Text.assemble((f"{mark:>{_GUTTER_WIDTH}} │ ", "dim"), (piece, style)))

    def _room(self, indent: int) -> int:
        return max(self._console.width - indent, _LEAST_WIDTH)

    def _put(self, line: Text) -> None:
        line.rstrip()
        self._console.print(line, soft_wrap=True)


def _numbered_quote(judged: Judged) -> list[tuple[str, str]]:
    """The quote's lines with their numbers, as far as it was found in the change."""
    finding = judged.finding
    lines = text_lines(finding.quote)
    numbered = [
        ("" if judged.hidden is HiddenReason.UNVERIFIED or number > finding.end_line else str(number), line)
        for number, line in enumerate(lines[:QUOTE_LIMIT], finding.line)
    ]
    if len(lines) > QUOTE_LIMIT:
        numbered.append(("...", count_words(len(lines) - QUOTE_LIMIT, "more line")))
    return numbered


def _list(names: Sequence[str]) -> str:
    """The first names and how many more there are."""
    more = f" and {len(names) - LIST_LIMIT:,} more" if len(names) > LIST_LIMIT else ""
    return ", ".join(names[:LIST_LIMIT]) + more


@contextlib.contextmanager
def progress(*, enabled: bool, total: int | None = None) -> Iterator[Step]:
    """Show how far the work is, on stderr and only where that is a terminal; take it away at the end.

    Yields a function to call with what is done, the total and what is being done. Any way out of the block,
    Ctrl-C too, gives the terminal its cursor back.
    """
    if not (enabled and sys.stderr.isatty()):
        yield _silent
        return
    columns = (
        TextColumn(
            "{task.description}",
            markup=False,
            table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
        ),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    # rich would send what others print to stdout through this console, which is stderr
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        task = bar.add_task("", total=total)

        def step(done: int, total: int, label: str) -> None:
            bar.update(task, completed=done, total=total, description=printable(label))

        yield step


def _silent(_done: int, _total: int, _label: str) -> None:
    """Progress that nobody sees."""
