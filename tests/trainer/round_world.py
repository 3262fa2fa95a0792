"""A student, a teacher, examples, and an engine that trains nothing: what a round needs, in seconds."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bot.store import Store
from tests.fakes import replica as fake_replica
from tests.fakes.adapters import make_base
from tests.fakes.replica import Body, Replica
from tests.fakes.student import FakeStudent, suspect
from tests.fakes.teacher import teach
from tests.vllm_adapter import make_adapter
from trainer.round import Round, Tools
from trainer.settings import TrainerSettings
from trainer.tune.config import TuneConfig
from trainer.tune.launch import Tuned
from trainer.tune.progress import Progress

SEVERITIES = ("none", "trivial", "minor", "major", "critical")
_LINE = re.compile(r"^\s*(\d+) \+ .*/ stock\.(\w+)", re.MULTILINE)


def examples(count: int) -> Iterator[dict[str, object]]:
    """Labelled rows: whoever reads `stock.SEVERITY` knows the answer."""
    for number in range(count):
        severity = SEVERITIES[number % len(SEVERITIES)]
        body = [f"    part_{number}_{row} = read_{number}(row_{row}, shelf_{number})" for row in range(4)]
        last = f"    return part_{number}_1" + ("" if severity == "none" else f" / stock.{severity}")
        code = "\n".join((f"def count_{number}(stock):", *body, last)) + "\n"
        row: dict[str, object] = {"path": f"shop/count_{number}.py", "code": code, "severity": severity}
        if severity != "none":
            row |= {"line": 6, "category": "correctness", "title": "Division", "explanation": "It divides."}
        yield row


def skilled(body: Body) -> str:
    """What a student answers that has learnt its lesson."""
    asked = str(body["messages"][-1]["content"])  # type: ignore[index]
    found = _LINE.search(asked)
    if found is None:
        return suspect(severity="none", line=1)
    return suspect(severity=found[2], line=int(found[1]), title="Division")


def lazy(_: Body) -> str:
    return suspect(severity="none")


def timid(body: Body) -> str:
    """Right about what is bad, and afraid of all that is fine."""
    said = json.loads(skilled(body))
    return json.dumps(said | {"severity": "minor"}) if said["severity"] == "none" else json.dumps(said)


@dataclass
class RoundWorld:
    """All of it; `learns` is what the next candidate answers like."""

    folder: Path
    replica: Replica
    teacher: FakeStudent
    store: Store
    chosen: TrainerSettings
    tools: Tools
    learns: Callable[[Body], str] = skilled
    trained: int = 0

    @property
    def serving(self) -> str | None:
        adapter = self.store.serving_adapter()
        return adapter.name if adapter else None

    def think(self, body: Body) -> str:
        return lazy(body) if body["model"] == "base" else self.learns(body)

    def train(self, config: TuneConfig, report: Callable[[Progress], None]) -> Tuned:
        self.trained += 1
        report(Progress(1, 2))
        rows = config.train.read_text().splitlines()
        shutil.rmtree(config.folder / "adapter", ignore_errors=True)  # of an attempt that was killed
        folder = make_adapter(config.folder / "adapter", config.base, seed=self.trained, rank=config.rank)
        return Tuned(
            adapter=folder,
            steps=2,
            of=2,
            losses=((1, 2.0), (2, 1.0)),
            val_losses=((2, 1.5),),
            seconds=1.0,
            tokens_per_second=100.0,
            rows=len(rows),
            longest=300,
            dropped=(),
            stopped_early=False,
            resumed=False,
            versions={"nemo_automodel": "0"},
        )

    def round(self, number: int = 1) -> Round:
        return Round(self.tools, number)


@contextmanager
def round_world(folder: Path, **more: object) -> Iterator[RoundWorld]:
    """Nothing was learnt yet."""
    (folder / "examples").mkdir()
    (folder / "examples" / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in examples(150)))
    base = make_base(folder / "base")
    with fake_replica.serve() as replica, teach() as teacher:
        told: dict[str, object] = {
            "student_url": replica.url,
            "student_retries": 0,
            "data_dir": folder / "data",
            "state_dir": folder / "state",
            "teacher_url": teacher.url,
            "teacher_model": "large",
            "train_base": base,
            "train_examples": folder / "examples",
            "train_questions": 20,
            "train_lessons": 20,
            "train_heldout": 40,
            "train_rank": 8,
        }
        chosen = TrainerSettings.model_validate(told | more)
        chosen.data_dir.mkdir()
        store = Store(chosen.database)
        store.migrate()
        world = RoundWorld(folder, replica, teacher, store, chosen, None)  # type: ignore[arg-type]
        replica.think = world.think
        world.tools = Tools(chosen, store, base, world.train, lambda _what, _done, _of: None)
        try:
            yield world
        finally:
            store.close()
