"""The figures of a round as a picture: what changed, what is confused with what, which skills, and how it learnt."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bot.answer import SEVERITY_LABELS
from trainer.grade import INVALID

BEFORE, AFTER = "tab:gray", "tab:green"
SHOWN = {
    "accuracy": "severity",
    "macro_f1": "macro-F1",
    "severe_recall": "severe seen",
    "false_alarms": "false alarms",
    "validity": "usable",
}
SKILLS = 12
"""The most that can be told apart in one picture: those with most questions."""
BAR = 0.4
DARK = 0.5

Curve = Sequence[tuple[int, float]]


def draw(told: Mapping[str, Any], losses: Curve, val_losses: Curve, path: Path) -> None:
    """Draw the report of a round into a PNG file.

    Args:
        told: the report (`trainer.report.document`).
        losses: (step, loss) over the training rows.
        val_losses: the same over the validation rows.
        path: of the picture.
    """
    figure = Figure(figsize=(13, 10), layout="constrained")
    (scores, table), (skills, curve) = figure.subplots(2, 2)
    before, after = told["heldout"]["before"], told["heldout"]["after"]
    verdict = "promoted" if told["promoted"] else "refused"
    figure.suptitle(
        f"Round {told['round']}: {after['adapter']} against {before['adapter'] or 'the base model'}, {verdict}"
    )
    pairs = {words: (before["scores"][key], after["scores"][key]) for key, words in SHOWN.items()}
    _bars(scores, pairs, f"held-out set, {after['scores']['questions']} questions")
    _table(table, after["confusion"])
    _bars(skills, _skills(before["proficiency"], after["proficiency"]), "severity right, per skill")
    _curve(curve, losses, val_losses)
    figure.savefig(path, dpi=100)


def _skills(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    most = sorted(after, key=lambda name: (-after[name]["asked"], name))[:SKILLS]
    return {
        f"{name} ({after[name]['asked']})": tuple(each[name]["right"] / each[name]["asked"] for each in (before, after))
        for name in sorted(most)
    }


def _bars(axes: Axes, pairs: Mapping[str, tuple[float, float]], title: str) -> None:
    places = range(len(pairs))
    for values, shift, colour, label in (
        ([before for before, _ in pairs.values()], -BAR / 2, BEFORE, "before"),
        ([after for _, after in pairs.values()], BAR / 2, AFTER, "after"),
    ):
        bars = axes.barh([place + shift for place in places], values, BAR, color=colour, label=label)
        axes.bar_label(bars, fmt="{:.0%}", padding=2, fontsize=8)
    axes.set_yticks(list(places), list(pairs))
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15)
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.set_title(title)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False)  # no bar is behind it


def _table(axes: Axes, confusion: Mapping[str, Mapping[str, int]]) -> None:
    given = (*SEVERITY_LABELS, INVALID)
    rows = [[confusion[wanted][label] for label in given] for wanted in SEVERITY_LABELS]
    axes.imshow(rows, cmap="Greens")
    top = max(map(max, rows)) or 1
    for row, counts in enumerate(rows):
        for column, count in enumerate(counts):
            colour = "white" if count > DARK * top else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=colour)
    axes.set_xticks(range(len(given)), given)
    axes.set_yticks(range(len(SEVERITY_LABELS)), SEVERITY_LABELS)
    axes.set_xlabel("given")
    axes.set_ylabel("wanted")
    axes.set_title("severities after")


def _curve(axes: Axes, losses: Curve, val_losses: Curve) -> None:
    axes.plot([step for step, _ in losses], [loss for _, loss in losses], color=BEFORE, label="training")
    steps, values = [step for step, _ in val_losses], [loss for _, loss in val_losses]
    axes.plot(steps, values, "o-", color=AFTER, label="validation")
    axes.set_xlabel("step")
    axes.set_title("loss of the answers' tokens")
    axes.set_ylim(bottom=0)
    axes.legend()
