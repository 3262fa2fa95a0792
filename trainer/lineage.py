"""Where a comment comes from: the review that said it, the adapter that answered, the rounds and votes behind that."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bot.store import Store, StoredAdapter, StoredFinding, StoredReview
from trainer.example import Origin, Task, load

PARTS = ("train.jsonl", "val.jsonl")


class UnknownOriginError(LookupError):
    """There is no such review or comment, or it is kept no longer."""


@dataclass(frozen=True, slots=True)
class Forebear:
    """An adapter that a review stands on.

    Args:
        name: of the adapter; `parent`: of the one that it was trained on.
        round: which made it.
        dataset: hash of what it was trained on.
        known: None for an adapter that is in the settings, but not in the store: nothing more is known of it.
    """

    name: str
    parent: str | None
    round: str | None
    dataset: str | None
    known: StoredAdapter | None


@dataclass(frozen=True, slots=True)
class Descent:
    """What stands behind a review.

    Args:
        review: itself, with the base model and the prompts.
        finding: what was said, where that was asked for.
        forebears: the adapter that answered, the one that it was trained on, and so on; none: the base model answered.
    """

    review: StoredReview
    finding: StoredFinding | None
    forebears: tuple[Forebear, ...]


def of_review(store: Store, review: str) -> Descent:
    """What stands behind a review.

    Raises:
        UnknownOriginError: there is none of that id.
    """
    found = store.review(review)
    if found is None:
        raise UnknownOriginError(f"there is no review {review}, or it is kept no longer")
    return Descent(found, None, tuple(_forebears(store, found.adapter)))


def of_note(store: Store, project: int, note: int) -> Descent:
    """What stands behind a comment, by its number in GitLab.

    Raises:
        UnknownOriginError: it says no finding.
    """
    finding = store.finding_by_note(project, note)
    if finding is None:
        raise UnknownOriginError(f"the comment {note} in project {project} says no finding, or it is kept no longer")
    behind = of_review(store, finding.review)
    return Descent(behind.review, finding, behind.forebears)


def rows_behind(trainer_dir: Path, forebear: Forebear) -> Iterator[Task]:
    """What an adapter was trained on; each row names the votes, the file or the round that it comes from.

    Nothing, where the round's folder is gone.
    """
    for part in PARTS if forebear.round else ():
        path = trainer_dir / "rounds" / f"{forebear.round}" / "dataset" / part
        if path.is_file():
            with path.open(encoding="utf-8") as lines:
                yield from map(load, lines)


def words(found: Descent, trainer_dir: Path) -> Iterator[str]:
    """All of it, a line each."""
    review = found.review
    yield f"review {review.id} of {review.ref}, {review.started_at:%Y-%m-%d %H:%M}"
    yield f"  by {review.model}, prompts {review.prompt_id}"
    if found.finding:
        finding = found.finding.finding
        yield f"  said of {finding.file}:{finding.line}: {finding.title} ({finding.severity})"
    if not found.forebears:
        yield "  answered by the base model"
    for forebear in found.forebears:
        if forebear.known is None:
            yield f"  adapter {forebear.name}, named in the settings: nothing more is known of it"
            continue
        yield f"  adapter {forebear.name} of the round {forebear.round}, dataset {forebear.dataset}"
        rows = list(rows_behind(trainer_dir, forebear))
        if not rows:
            yield "    its dataset is not here any more"
        for source, count in sorted(Counter(_source(row) for row in rows).items()):
            yield f"    {count:>5}  {source}"


def _source(row: Task) -> str:
    """Where a row comes from: of a file its name, of votes the merge request, of a teacher the round."""
    return row.lineage.source.rsplit(":", 1)[0] if row.origin is Origin.FILE else row.lineage.source


def _forebears(store: Store, adapter: str | None) -> Iterator[Forebear]:
    seen: set[str] = set()
    while adapter is not None and adapter not in seen:  # a card says who its parent is: it may say nonsense
        seen.add(adapter)
        known = store.adapter(adapter)
        card = known.card if known else {}
        parent = known.parent if known else None
        yield Forebear(adapter, parent, _text(card.get("round")), _text(card.get("dataset")), known)
        adapter = parent


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
