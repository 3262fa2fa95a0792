"""The student gets back the adapters that it forgets at a restart, and a review that met it without them goes on."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from bot.gitlab import door
from bot.serving import Loaded, put_back
from bot.settings import Settings
from bot.step import Wait, now
from bot.store import AdapterState, Store
from tests.fakes import replica as fake_replica
from tests.fakes.bot_world import bot_world
from tests.fakes.replica import DropError, Replica
from tests.test_review_command import PATCH, apprentice


@dataclass
class Place:
    """A bot's data folder with two adapters, and two servers behind the student's address."""

    store: Store
    chosen: Settings
    servers: tuple[Replica, Replica]

    @property
    def folder(self) -> Path:
        return self.chosen.data_dir / "trainer" / "adapters"

    @property
    def loaded(self) -> list[list[str]]:
        return [list(server.loaded) for server in self.servers]

    def publish(self, name: str) -> None:
        folder = self.folder / name
        folder.mkdir(parents=True)
        files = {}
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            (folder / file).write_text(f"{file} of {name}")
            files[file] = hashlib.sha256((folder / file).read_bytes()).hexdigest()
        card = {"files": files}
        self.store.register_adapter(name, base="base", parent=None, card=card, state=AdapterState.CANDIDATE, at=now())

    def put_back(self) -> Loaded:
        return put_back(self.chosen, self.store)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        one, two = (stack.enter_context(fake_replica.serve()) for _ in range(2))
        replicas = f"{one.url},{two.url}"
        chosen = Settings(
            student_url=one.url, student_replicas=replicas, data_dir=tmp_path, state_dir=tmp_path, student_retries=0
        )
        store = Store(chosen.database)
        stack.callback(store.close)
        store.migrate()
        made = Place(store, chosen, (one, two))
        for name in ("a1", "a2"):
            made.publish(name)
        yield made


def test_nobody_is_asked_where_no_adapter_answers(place: Place) -> None:
    place.chosen = place.chosen.model_copy(update={"student_url": "http://127.0.0.1:1/v1", "student_adapter": "mine"})
    assert place.put_back() == Loaded()


def test_the_serving_adapter_is_put_back_at_every_server_once(place: Place) -> None:
    place.store.serve_adapter("a2", now())
    one, two = place.servers
    assert place.put_back().adapters == (f"a2 at {one.url}", f"a2 at {two.url}")
    assert place.put_back() == Loaded()
    two.restart()
    assert place.put_back().adapters == (f"a2 at {two.url}",)
    assert two.loaded == {"a2": place.folder / "a2"}
    assert one.calls == ["load a2"]
    assert {frozenset(body) for body in one.bodies} == {frozenset({"lora_name", "lora_path"})}  # never `load_inplace`


def test_adapters_that_reviews_ask_and_the_pinned_one_are_put_back_too(place: Place) -> None:
    place.publish("a3")
    with bot_world(place.chosen.data_dir) as here:
        claim = here.claim()
    place.store.serve_adapter("a1", now())
    place.store.begin_review(claim.workflow, claim.ref, None, full=True, trigger="push", at=now())
    place.store.take_adapter(claim.workflow)
    place.store.serve_adapter("a2", now())
    place.chosen = place.chosen.model_copy(update={"student_adapter": "a3"})
    place.put_back()
    assert place.loaded == [["a1", "a2", "a3"]] * 2


def test_a_server_that_is_down_holds_up_no_other(place: Place) -> None:
    place.store.serve_adapter("a2", now())
    urls = f"http://127.0.0.1:1/v1,{place.servers[1].url}"
    place.chosen = place.chosen.model_copy(update={"student_replicas": urls})
    said = place.put_back()
    assert said.adapters == (f"a2 at {place.servers[1].url}",)
    assert "127.0.0.1:1/v1/models cannot be reached" in said.problems[0]
    place.chosen = place.chosen.model_copy(update={"student_url": None})
    assert "no student is running" in place.put_back().problems[0]


@pytest.mark.parametrize(("spoil", "said"), [("change", "was changed after it was published"), ("remove", "is gone")])
def test_a_folder_that_was_changed_reaches_no_server(place: Place, spoil: str, said: str) -> None:
    place.store.serve_adapter("a2", now())
    weights = place.folder / "a2" / "adapter_model.safetensors"
    if spoil == "change":
        weights.write_text("other weights under the old name")
    else:
        weights.unlink()
    problems = place.put_back().problems
    assert all("The adapter a2 was not loaded" in problem and said in problem for problem in problems)
    assert len(problems) == 2
    assert [server.calls for server in place.servers] == [[], []]


def test_a_folder_that_only_the_students_machine_sees_is_named_by_its_path_there(place: Place) -> None:
    place.store.serve_adapter("a2", now())
    there = Path("/mnt/adapters")
    place.chosen = place.chosen.model_copy(update={"student_adapters_dir": there})
    problems = place.put_back().problems
    assert "No adapter found for /mnt/adapters/a2" in problems[0]


def test_somebody_who_was_faster_is_no_trouble(place: Place) -> None:
    place.store.serve_adapter("a2", now())
    one, two = place.servers

    def faster(call: str, when: str) -> None:
        if (call, when) == ("load a2", "before"):
            one.loaded["a2"] = place.folder / "a2"

    def other(call: str, when: str) -> None:
        if (call, when) == ("load a2", "before"):
            two.loaded["a2"] = Path("/elsewhere/a2")

    one.hook, two.hook = faster, other
    said = place.put_back()
    assert said.adapters == (f"a2 at {one.url}",)
    assert "The student serves a2 from /elsewhere/a2, and not from" in said.problems[0]


# --- reviews


def test_a_review_whose_adapter_the_student_forgot_waits_and_goes_on_with_it(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(door, "FIRST_WAIT", 0.01)
    place.store.serve_adapter("a1", now())
    world = tmp_path / "world"
    world.mkdir()
    with bot_world(world) as here:
        here.steps.chosen, here.steps.store = place.chosen, place.store
        here.store = place.store
        claim = here.claim()
        waits = here.steps.ask(claim, 0)
        assert isinstance(waits, Wait)
        assert (waits.spent, waits.said) == (False, "the student does not serve that model")
        assert place.store.adapters_in_use() == {}  # while it waits it holds none
        assert place.loaded == [["a1"], ["a1"]]
        place.store.serve_adapter("a2", now())  # the pointer moves meanwhile
        place.put_back()
        here.ready(claim)
        review = place.store.review(claim.workflow)
        assert review
        assert review.adapter == "a2"
        assert place.servers[0].calls[-1] == "chat a2"


def test_a_review_asks_the_pinned_adapter_whoever_serves(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(door, "FIRST_WAIT", 0.01)
    place.store.serve_adapter("a1", now())
    world = tmp_path / "world"
    world.mkdir()
    with bot_world(world) as here:
        here.steps.chosen = place.chosen.model_copy(update={"student_adapter": "a2"})
        here.steps.store = here.store = place.store
        seen: list[object] = []
        place.servers[0].hook = lambda call, _: seen.append((call, dict(place.store.adapters_in_use())))
        claim = here.claim()
        assert isinstance(here.steps.ask(claim, 0), Wait)  # it is put back, as the store knows it
        here.ready(claim)
        assert ("chat a2", {"a2": 1}) in seen
        review = place.store.review(claim.workflow)
        assert review
        assert review.adapter == "a2"


# --- the command line


def told(place: Place, tmp_path: Path, *arguments: str) -> tuple[dict[str, object], str, int]:
    variables = {
        "APPRENTICE_STUDENT_URL": place.servers[0].url,
        "APPRENTICE_DATA_DIR": str(place.chosen.data_dir),
        "APPRENTICE_STATE_DIR": str(tmp_path),
        "APPRENTICE_STUDENT_RETRIES": "0",
    }
    call = ("review", "--patch", "-", "--format", "json", *arguments)
    done = apprentice(*call, folder=tmp_path, stdin=PATCH.encode(), **variables)
    return json.loads(done.out), done.err, done.code


def test_the_command_reviews_with_the_adapter_that_the_bot_reviews_with(place: Place, tmp_path: Path) -> None:
    assert told(place, tmp_path)[0]["adapter"] is None
    place.store.serve_adapter("a1", now())
    document, errors, code = told(place, tmp_path)
    assert (document["adapter"], errors, code) == ("a1", "", 0)
    place.servers[0].loaded["a2"] = place.folder / "a2"
    assert told(place, tmp_path, "--adapter", "a2")[0]["adapter"] == "a2"


def test_the_command_says_what_keeps_it_from_the_adapter(place: Place, tmp_path: Path) -> None:
    place.store.serve_adapter("a1", now())
    (place.folder / "a1" / "adapter_config.json").unlink()
    _, errors, code = told(place, tmp_path)
    assert (code, "warning: The adapter a1 was not loaded" in errors) == (3, True)
    place.chosen.own_database.write_text("this is no database")
    document, errors, code = told(place, tmp_path)
    assert (document["adapter"], code) == (None, 0)
    assert "note: the base model reviews, because no adapter could be looked up" in errors


def test_a_line_that_breaks_while_an_adapter_is_loaded_is_a_problem_like_any_other(place: Place) -> None:
    def drop(_call: str, _when: str) -> None:
        raise DropError

    place.store.serve_adapter("a1", now())
    place.servers[0].hook = drop
    said = place.put_back()
    assert said.adapters == (f"a1 at {place.servers[1].url}",)
    assert "load_lora_adapter cannot be reached" in said.problems[0]
