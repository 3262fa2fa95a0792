"""A small base model and adapters for it, published and registered, at as many servers as a test wants."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bot.settings import Settings
from bot.store import AdapterState, Store
from tests.fakes import replica as fake_replica
from tests.fakes.replica import Replica
from tests.vllm_adapter import make_adapter, write_safetensors
from trainer.adapter import Card, fingerprint, publish
from trainer.rollout import Rollout

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


def make_base(folder: Path, *, layers: int = 2, hidden: int = 16, first: int = 0) -> Path:
    """A model of a few numbers; `first` is in all of them."""
    folder.mkdir(parents=True)
    shapes = {
        f"model.layers.{layer}.self_attn.{name}.weight": (rows, hidden)
        for layer in range(layers)
        for name, rows in (("q_proj", hidden), ("v_proj", 4))
    }
    weights = {name: (shape, bytes([first]) * (4 * shape[0] * shape[1])) for name, shape in shapes.items()}
    write_safetensors(folder / "model.safetensors", weights)
    told = {"hidden_size": hidden, "num_hidden_layers": layers, "vocab_size": 64, "transformers_version": "5"}
    (folder / "config.json").write_text(json.dumps(told))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("...")
    return folder


def card(name: str, base: Path, **told: object) -> Card:
    known: dict[str, object] = {
        "name": name,
        "base": "base",
        "fingerprint": fingerprint(base),
        "round": name.removeprefix("student-"),
        "dataset": f"dataset of {name}",
        "prompt_id": "p1",
        "created_at": NOON,
    }
    return Card.model_validate(known | told)


@dataclass
class World:
    """A data folder with a database and adapters, and servers behind the student's address."""

    store: Store
    chosen: Settings
    servers: tuple[Replica, ...]
    base: Path

    @property
    def rollout(self) -> Rollout:
        return Rollout(self.store, self.chosen, base=self.base, max_rank=16)

    @property
    def folder(self) -> Path:
        return self.chosen.data_dir / "trainer" / "adapters"

    @property
    def serving(self) -> str | None:
        adapter = self.store.serving_adapter()
        return adapter.name if adapter else None

    @property
    def loaded(self) -> list[list[str]]:
        return [sorted(server.loaded) for server in self.servers]

    @property
    def calls(self) -> list[list[str]]:
        return [server.calls for server in self.servers]

    def forget_calls(self) -> None:
        for server in self.servers:
            server.calls.clear()

    def publish(self, name: str, *, parent: str | None = None, seed: int = 1, scale: float = 0.1) -> Path:
        tuned = make_adapter(self.chosen.data_dir / "tuned" / name, self.base, seed=seed, scale=scale)
        known = card(name, self.base, parent=parent)
        folder = publish(tuned, name, known, self.folder, base=self.base, max_rank=16)
        self.store.register_adapter(
            name,
            base="base",
            parent=parent,
            card=Card.model_validate_json((folder / "card.json").read_bytes()).model_dump(mode="json"),
            state=AdapterState.CANDIDATE,
            at=NOON,
        )
        return folder


@contextmanager
def world(folder: Path, servers: int = 2) -> Iterator[World]:
    """One without adapters."""
    with ExitStack() as stack:
        made = tuple(stack.enter_context(fake_replica.serve()) for _ in range(servers))
        chosen = settings(folder, [server.url for server in made])
        store = Store(chosen.database)
        stack.callback(store.close)
        store.migrate()
        yield World(store, chosen, made, make_base(folder / "base"))


def settings(folder: Path, urls: list[str]) -> Settings:
    return Settings(
        student_url=urls[0],
        student_replicas=",".join(urls),
        student_retries=0,
        data_dir=folder,
        state_dir=folder / "state",
    )


def roll_out(folder: Path, urls: list[str], name: str) -> None:
    """For a process of its own, that is killed meanwhile."""
    chosen = settings(folder, urls)
    Rollout(Store(chosen.database), chosen, base=folder / "base", max_rank=16).roll_out(name)
