"""Which adapter serves, who uses it, and what people thought of its findings."""

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from bot.domain import HiddenReason, Judged, MergeRef, Review, Vote, VoteOrigin
from bot.forge import Posted, Publication
from bot.store import AdapterState, Beside, ReviewState, Store, StoredAdapter, StoreError
from tests.test_store import FINDING, OTHER, REF, REFS, RESULT, at, at_once


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    store = Store(database_url)
    store.migrate()
    yield store
    store.close()


def register(store: Store, *names: str, state: AdapterState = AdapterState.CANDIDATE) -> None:
    for number, name in enumerate(names):
        store.register_adapter(name, base="granite", parent=None, card={}, state=state, at=at(number))


def state(store: Store, name: str) -> AdapterState:
    adapter = store.adapter(name)
    assert adapter
    return adapter.state


def serving(store: Store) -> str | None:
    adapter = store.serving_adapter()
    return adapter.name if adapter else None


# --- what became of them


def test_adapters_are_kept_with_what_became_of_them(store: Store) -> None:
    store.register_adapter("r2", base="granite", parent="r1", card={"f1": 0.5}, state=AdapterState.CANDIDATE, at=at(2))
    store.register_adapter("r1", base="granite", parent=None, card={}, state=AdapterState.CANDIDATE, at=at(1))
    store.register_adapter(
        "r1", base="granite", parent=None, card={"note": ["ü\0"]}, state=AdapterState.REFUSED, at=at(3)
    )
    store.mark_adapter("r2", AdapterState.SHADOW)
    assert store.adapters() == (
        StoredAdapter("r1", "granite", None, {"note": ["ü\0"]}, AdapterState.REFUSED, at(1)),
        StoredAdapter("r2", "granite", "r1", {"f1": 0.5}, AdapterState.SHADOW, at(2)),
    )
    assert store.adapter("r2") == store.adapters()[1]
    assert store.adapter("r3") is None


def test_only_one_way_leads_to_serving_and_away_from_it(store: Store) -> None:
    with pytest.raises(ValueError, match="only serve_adapter"):
        register(store, "a", state=AdapterState.SERVING)
    register(store, "a")
    with pytest.raises(ValueError, match="only serve_adapter"):
        store.mark_adapter("a", AdapterState.SERVING)
    store.serve_adapter("a", at(1))
    store.mark_adapter("a", AdapterState.REFUSED)
    register(store, "a")  # a step that runs twice takes nothing back
    assert serving(store) == "a"


# --- the pointer


def test_the_pointer_moves_and_who_served_is_retired(store: Store) -> None:
    register(store, "a", "b")
    assert serving(store) is None
    store.serve_adapter("a", at(1))
    store.serve_adapter("b", at(2))
    store.serve_adapter("b", at(9))  # again: nothing
    a, b = store.adapters()
    assert (a.state, a.predecessor, a.served_at, a.retired_at) == (AdapterState.RETIRED, None, at(1), at(2))
    assert (b.state, b.predecessor, b.served_at, b.retired_at) == (AdapterState.SERVING, "a", at(2), None)
    store.serve_adapter(None, at(3))
    store.serve_adapter(None, at(4))
    assert serving(store) is None
    assert state(store, "b") is AdapterState.RETIRED


def test_going_back_again_and_again_ends_at_the_base(store: Store) -> None:
    register(store, "a", "b", "c")
    for number, name in enumerate("abc"):
        store.serve_adapter(name, at(number))
    way = []
    while here := store.serving_adapter():
        way.append(here.name)
        store.serve_adapter(here.predecessor, at(10 + len(way)))
    assert way == ["c", "b", "a"]


@pytest.mark.parametrize(("name", "said"), [("nobody", "nobody is not known"), ("bad", "bad was refused")])
def test_the_pointer_does_not_move_to_what_may_not_serve(store: Store, name: str, said: str) -> None:
    register(store, "a")
    register(store, "bad", state=AdapterState.REFUSED)
    store.serve_adapter("a", at(1))
    with pytest.raises(StoreError, match=said):
        store.serve_adapter(name, at(2))
    assert serving(store) == "a"


def test_two_who_move_the_pointer_at_once_leave_one_serving(store: Store) -> None:
    names = [f"a{number}" for number in range(6)]
    register(store, *names)
    at_once(*(lambda name=name: store.serve_adapter(name, at(1)) for name in names))
    states = [adapter.state for adapter in store.adapters()]
    assert sorted(states) == [AdapterState.RETIRED] * 5 + [AdapterState.SERVING]


# --- who uses it


def test_a_review_uses_the_adapter_that_it_took_until_it_is_asked_no_more(store: Store) -> None:
    register(store, "a", "b")
    store.begin_review("r0", REF, REFS, full=True, trigger="push", at=at(0))
    assert store.take_adapter("r0") is None
    assert store.adapters_in_use() == {}
    store.serve_adapter("a", at(1))
    for name in ("r1", "r2", "r3"):
        store.begin_review(name, REF, REFS, full=True, trigger="push", at=at(0))
        assert store.take_adapter(name) == "a"
    store.serve_adapter("b", at(2))
    assert store.take_adapter("r0") == "b"
    assert store.take_adapter("r3", pinned="c") == "c"
    assert store.adapters_in_use() == {"a": 2, "b": 1, "c": 1}
    store.leave_adapter("r0")
    store.finish_review("r1", ReviewState.FAILED, at=at(3))
    store.save_findings("r2", replace(RESULT, adapter="a"))
    assert store.adapters_in_use() == {"a": 1, "c": 1}
    store.begin_posting("r2")
    assert store.adapters_in_use() == {"c": 1}
    review = store.review("r2")
    assert review
    assert review.adapter == "a"
    assert store.take_adapter("forgotten") == "b"


def test_who_moves_the_pointer_finds_every_review_that_took_the_old_one(store: Store) -> None:
    """Nobody takes an adapter unseen: not even in the moment in which the pointer moves."""
    register(store, "a", "b")
    store.serve_adapter("a", at(0))
    reviews = [f"r{number}" for number in range(30)]
    for name in reviews:
        store.begin_review(name, REF, REFS, full=True, trigger="push", at=at(0))
    took: list[str | None] = []
    seen: list[int] = []
    begun = threading.Event()

    def take() -> None:
        for name in reviews:
            took.append(store.take_adapter(name))
            begun.set()

    def move() -> None:
        begun.wait()
        store.serve_adapter("b", at(1))
        seen.append(store.adapters_in_use().get("a", 0))

    at_once(take, move)
    assert None not in took
    assert seen == [took.count("a")]
    assert took == ["a"] * seen[0] + ["b"] * (30 - seen[0])


# --- votes


def posted(store: Store, name: str, adapter: str | None, ref: MergeRef, note: int) -> None:
    seconds = note
    result: Review = replace(RESULT, adapter=adapter, findings=(Judged(FINDING),))
    store.begin_review(name, ref, REFS, full=True, trigger="push", at=at(seconds))
    store.save_findings(name, result)
    store.begin_posting(name)
    store.record_posted(name, Publication((Posted(FINDING.fingerprint, "d", note, "line"),), ()), at=at(seconds))
    store.finish_review(name, ReviewState.POSTED, at=at(seconds))


def cast(store: Store, ref: MergeRef, voter: str, *, up: bool, fingerprint: str = FINDING.fingerprint) -> None:
    vote = Vote(ref, fingerprint, voter, up, VoteOrigin.EMOJI, None, 0.9, at(50))
    store.add_vote(vote, source=voter)


def test_votes_count_for_the_adapter_that_first_said_the_finding(store: Store) -> None:
    posted(store, "r1", "a", REF, 1)
    posted(store, "r2", "b", REF, 2)  # says the same once more
    posted(store, "r3", "b", OTHER, 3)
    posted(store, "r4", None, MergeRef(8, 2), 4)
    cast(store, REF, "ann", up=True)
    cast(store, REF, "bob", up=False)
    cast(store, REF, "eve", up=False)
    cast(store, OTHER, "ann", up=True)
    cast(store, MergeRef(8, 2), "ann", up=False)
    cast(store, REF, "ann", up=False, fingerprint="forgotten")
    assert store.votes_by_adapter() == {"a": (1, 2), "b": (1, 0), None: (0, 1)}


# --- the shadow


def test_what_the_shadow_found_stands_beside_what_was_shown(store: Store) -> None:
    assert store.shadow_adapter() is None
    for name, second in (("old", 1), ("new", 2)):
        card = {"round": name}
        store.register_adapter(name, base="b", parent=None, card=card, state=AdapterState.SHADOW, at=at(second))
    shadow = store.shadow_adapter()
    assert shadow
    assert shadow.name == "new"
    posted(store, "r1", None, REF, 1)
    other = replace(FINDING, quote="another")
    hidden = Judged(replace(FINDING, quote="hidden"), HiddenReason.BELOW_THRESHOLD)
    store.save_shadow("r1", "new", [Judged(FINDING)], at(3))
    store.save_shadow("r1", "new", [Judged(other), hidden], at(4))  # made again
    store.save_shadow("forgotten", "new", [Judged(other)], at(4))
    shown, said = frozenset({FINDING.fingerprint}), frozenset({other.fingerprint})
    assert store.besides("new") == (Beside("r1", shown, said),)
    assert store.besides("old") == ()
    store.forget_project(REF.project)
    assert store.besides("new") == ()
