"""How long work shows itself: a stage that replaces the last, how much of it is done, lines that stay."""

import sys
import types
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from rich.progress import TaskID


class Progress(Protocol):
    """What the slow functions of this package report to."""

    def stage(self, text: str, detail: str = "") -> None:
        """Say what goes on now, and which part of it; it replaces what was said last."""
        ...

    def amount(self, done: float, total: float) -> None:
        """Say how much of the stage is done, in any unit."""
        ...

    def keep(self, line: str) -> None:
        """Print a line that stays."""
        ...


class Shown:
    """Progress on standard error: a live line with the seconds in a terminal, one line a stage elsewhere."""

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415 -- imported late: the command line starts without it
        from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415 -- as above
        from rich.progress import Progress as Bars  # noqa: PLC0415 -- as above

        self.console = Console(file=sys.stderr, highlight=False)
        text = TextColumn("{task.description}", markup=False)
        columns = (SpinnerColumn(), text, BarColumn(bar_width=24), TimeElapsedColumn())
        self.bars = Bars(*columns, console=self.console, transient=True)
        self.task: TaskID | None = None
        self.said = ""

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self.bars.stop()

    def stage(self, text: str, detail: str = "") -> None:
        """Show a stage, in a terminal with its detail; the clock starts again with another stage before a colon."""
        clock = text.partition(":")[0]
        if not self.console.is_terminal:
            if text != self.said:
                self.console.print(text, markup=False, soft_wrap=True)
        elif self.task is None or self.said.partition(":")[0] != clock:
            if self.task is not None:
                self.bars.remove_task(self.task)
            self.task = self.bars.add_task(text, total=None)
        else:
            self.bars.update(self.task, description=f"{text}: {detail}" if detail else text)
        self.said = text

    def amount(self, done: float, total: float) -> None:
        """Fill the bar of the stage."""
        if self.task is not None:
            self.bars.update(self.task, completed=done, total=total)

    def keep(self, line: str) -> None:
        """Print above the live line."""
        self.console.print(line, markup=False, soft_wrap=True)
