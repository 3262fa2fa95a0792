"""From a comment to the adapter that said it, and on to the votes that the adapter learned from."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bot.answer import Suspect
from bot.diff import parse
from bot.domain import Category, Judged, MergeRef
from bot.forge import Posted, Publication
from bot.plan import Question
from bot.prompt import Brief, Part
from bot.store import AdapterState, Store
from tests.test_store import FINDING, REF, REFS, RESULT, at
from trainer.example import Lineage, Origin, Task, dump
from trainer.lineage import UnknownOriginError, of_note, of_review, rows_behind, words


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path / 'bot.sqlite'}")
    store.migrate()
    yield store
    store.close()


def adapter(store: Store, name: str, parent: str | None, card: dict[str, object]) -> None:
    store.register_adapter(name, base="granite", parent=parent, card=card, state=AdapterState.CANDIDATE, at=at(1))


def reviewed(store: Store, name: str | None, *, note: int = 5) -> None:
    store.begin_review("r1", REF, REFS, full=True, trigger="push", at=at(0))
    store.save_findings("r1", replace(RESULT, adapter=name, findings=(Judged(FINDING),)))
    store.begin_posting("r1")
    store.record_posted("r1", Publication((Posted(FINDING.fingerprint, "d", note, "line"),), ()), at=at(1))


def task(line: str, voter: str) -> Task:
    (file,) = parse(f"--- a/pay.py\n+++ b/pay.py\n@@ -0,0 +1 @@\n+{line}\n")
    answer = Suspect(
        line=1, quote=line, explanation="x", severity="major", category=Category.SECURITY, title="t", suggestion=None
    )
    lineage = Lineage(source="votes", merge=MergeRef(7, 12), fingerprint="f", voters=(voter,), reviews=("r0",))
    return Task(
        question=Question(Part(file.path, file.hunks[0].lines), Brief()),
        answer=answer,
        origin=Origin.VOTE,
        weight=1,
        lineage=lineage,
    )


def test_a_comment_leads_to_its_adapter_the_round_and_the_votes(store: Store, tmp_path: Path) -> None:
    adapter(store, "student-r0001", None, {"round": "r0001", "dataset": "d1"})
    adapter(store, "student-r0002", "student-r0001", {"round": "r0002", "dataset": "d2"})
    reviewed(store, "student-r0002")
    dataset = tmp_path / "rounds" / "r0002" / "dataset"
    dataset.mkdir(parents=True)
    (dataset / "train.jsonl").write_text(dump(task("a = 1", "ann")) + "\n" + dump(task("b = 1", "bob")) + "\n")
    (dataset / "val.jsonl").write_text(dump(task("c = 1", "eve")) + "\n")
    behind = of_note(store, REF.project, 5)
    assert (behind.review.id, behind.review.prompt_id) == ("r1", "p1")
    assert behind.finding
    assert behind.finding.finding == FINDING
    newest, oldest = behind.forebears
    assert (newest.name, newest.parent, newest.round, newest.dataset) == (
        "student-r0002",
        "student-r0001",
        "r0002",
        "d2",
    )
    assert (oldest.name, oldest.parent, oldest.known) == ("student-r0001", None, store.adapter("student-r0001"))
    assert [row.lineage.voters for row in rows_behind(tmp_path, newest)] == [("ann",), ("bob",), ("eve",)]
    assert list(rows_behind(tmp_path, oldest)) == []  # its folder is gone
    assert of_review(store, "r1") == replace(behind, finding=None)
    assert list(words(behind, tmp_path)) == [
        f"review r1 of {REF}, {at(0):%Y-%m-%d %H:%M}",
        "  by granite, prompts p1",
        f"  said of {FINDING.file}:{FINDING.line}: {FINDING.title} ({FINDING.severity})",
        "  adapter student-r0002 of the round r0002, dataset d2",
        "        3  votes",
        "  adapter student-r0001 of the round r0001, dataset d1",
        "    its dataset is not here any more",
    ]


def test_the_base_model_has_no_forebears_and_a_foreign_adapter_no_history(store: Store, tmp_path: Path) -> None:
    reviewed(store, None)
    assert of_review(store, "r1").forebears == ()
    store.save_findings("r1", replace(RESULT, adapter="somebodys"))
    (only,) = of_review(store, "r1").forebears
    assert (only.name, only.round, only.known) == ("somebodys", None, None)
    assert list(rows_behind(tmp_path, only)) == []
    assert list(words(of_review(store, "r1"), tmp_path))[2:] == [
        "  adapter somebodys, named in the settings: nothing more is known of it"
    ]
    store.save_findings("r1", replace(RESULT, adapter=None))
    assert list(words(of_review(store, "r1"), tmp_path))[2:] == ["  answered by the base model"]


def test_cards_that_go_round_in_circles_end(store: Store) -> None:
    adapter(store, "a", "b", {"round": 7})
    adapter(store, "b", "a", {})
    reviewed(store, "a")
    assert [(one.name, one.round) for one in of_review(store, "r1").forebears] == [("a", None), ("b", None)]


def test_what_is_not_there_is_named(store: Store) -> None:
    with pytest.raises(UnknownOriginError, match="no review r9"):
        of_review(store, "r9")
    with pytest.raises(UnknownOriginError, match="the comment 5 in project 7 says no finding"):
        of_note(store, 7, 5)
