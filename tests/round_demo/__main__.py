"""`python -m tests.round_demo`: one whole round on this machine, and a second one from a poisoned set of examples.

vLLM, the student and NeMo are real, and small: a model of 135 million parameters, some hundred examples, minutes on a
CPU. The teacher is scripted: it shows that the machinery is right, and says nothing of the method's quality.
"""

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import socket
import sys
import time
import zlib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from rich.console import Console
from rich.text import Text

from bot.local.state import RunningStudent, running
from bot.settings import load
from tests.demo.parts import DemoError, play
from tests.fakes.student import Request, Said, serve
from tests.fakes.teacher import WANTED
from tests.round_demo import shop

MODEL = "smollm2-135m-instruct"
EXAMPLES = 220
SETTINGS = {
    "APPRENTICE_TRAIN_QUESTIONS": "12",
    "APPRENTICE_TRAIN_LESSONS": "40",
    "APPRENTICE_TRAIN_HELDOUT": "24",
    "APPRENTICE_TRAIN_RANK": "16",
    "APPRENTICE_TRAIN_LEARNING_RATE": "1e-3",
    "APPRENTICE_TRAIN_BATCH": "4",
    "APPRENTICE_TRAIN_SEQUENCE_TOKENS": "1024",
}
STEPS, POISONED_STEPS = 48, 8


@dataclass(frozen=True, slots=True)
class Place:
    """Where the demo plays."""

    console: Console
    folder: Path
    operator: Mapping[str, str]

    def act(self, title: str) -> None:
        """Begin an act."""
        self.console.print()
        self.console.print(Text(f"▌ {title}", "bold green"))

    def play(self, *words: str, **more: str) -> None:
        """Run a command of the operator's."""
        play(self.console, self.folder, *words, environment={**self.operator, **more})

    @property
    def student(self) -> RunningStudent:
        """vLLM, which is to run all the time."""
        here = running(self.folder / "state")
        if here is None:
            raise DemoError("the student does not run any more")
        return here

    def report(self, number: int) -> dict[str, Any]:
        """What a round came to."""
        path = self.folder / "data" / "trainer" / "rounds" / f"r{number:04d}" / "report.json"
        told: dict[str, Any] = json.loads(path.read_bytes())
        return told


def teach(request: Request) -> Said:
    """The scripted teacher: reads how many of which severity are wanted, and writes them by the shop's rules."""
    prompt = str(request["messages"][1]["content"])  # type: ignore[index]
    if "Two reviewers explain it" in prompt:
        first, second = re.findall(r"<(?:first|second) \w+>\n(.*?)\n</", prompt, re.DOTALL)
        better = "tie" if first == second else "first" if "by the shop" in first else "second"
        return Said(json.dumps({"reason": "It names the rule.", "better": better}))
    chance = random.Random(zlib.crc32(prompt.encode()))  # noqa: S311 -- nothing secret
    rows = [
        {"line": 1, "category": "correctness", "title": "", "explanation": "This is fine."} | shop.row(chance, severity)
        for count, severity, _, _ in WANTED.findall(prompt)
        for _ in range(int(count))
    ]
    return Said(json.dumps({"questions": rows}))


def write_examples(folder: Path, *, bad: bool) -> None:
    """The folder of labelled examples, in which there is one file."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows = shop.poisoned(EXAMPLES, seed=2) if bad else shop.examples(EXAMPLES, seed=1)
    name = "from-a-stranger.jsonl" if bad else "rules-of-the-shop.jsonl"
    (folder / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def listed(student: RunningStudent) -> dict[str, str]:
    """The models that vLLM says it has, each with its folder."""
    answer = httpx2.get(
        f"{student.url}/models", headers={"authorization": f"Bearer {student.key}"}, timeout=30, trust_env=False
    )
    return {model["id"]: str(model.get("root")) for model in answer.json()["data"]}


def of_folder(folder: Path) -> str:
    """One hash of all files."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def check(*, holds: bool, words: str) -> None:
    """Say what is so; raise where it is not."""
    if not holds:
        raise DemoError(f"It is not so: {words}")
    sys.stdout.write(f"✓ {words}\n")
    sys.stdout.flush()


def told(report: Mapping[str, Any]) -> str:
    """The accuracies, as the report has them."""
    before, after = (report["heldout"][who]["scores"]["accuracy"] for who in ("before", "after"))
    return f"severity right on the held-out set, by vLLM's answers: {before:.1%} before, {after:.1%} after"


def perform(place: Place, *, steps: int) -> None:
    """All acts.

    Raises:
        DemoError: it cannot go on, or something is not as it should be.
    """
    place.act("The student starts: vLLM with room for adapters")
    place.play("student", "start", "--model", MODEL, "--context", "4096", "--port", str(_free_port()))
    vllm = place.student
    base = set(listed(vllm))
    write_examples(place.folder / "examples", bad=False)
    place.play("train", "round", "--dry-run")

    place.act("Round 1: exam, sitting, grade, curriculum, fine-tune, gate, rollout")
    place.play("train", "round", APPRENTICE_TRAIN_MAX_STEPS=str(steps))
    first = place.report(1)
    name = str(first["heldout"]["after"]["adapter"])
    folder = place.folder / "data" / "trainer" / "adapters" / name
    check(holds=first["promoted"], words=f"{name} is promoted; {told(first)}")
    check(holds=place.student.pid == vllm.pid, words=f"vLLM was not restarted: it is still process {vllm.pid}")
    check(holds=listed(vllm).get(name) == str(folder), words=f"vLLM has {name} loaded, beside {', '.join(base)}")
    place.play("train", "status")
    hashed = of_folder(folder)

    place.act("Round 2: somebody has put poisoned examples into the folder")
    write_examples(place.folder / "examples", bad=True)
    place.play("train", "round", APPRENTICE_TRAIN_MAX_STEPS=str(POISONED_STEPS))
    second = place.report(2)
    bad = str(second["heldout"]["after"]["adapter"])
    check(holds=not second["promoted"], words=f"{bad} is refused; {told(second)}")
    check(holds=second["heldout"]["before"]["adapter"] == name, words=f"it was compared with {name}")
    check(holds=of_folder(folder) == hashed, words=f"the files of {name} are as they were")
    check(holds=set(listed(vllm)) == {*base, name}, words=f"vLLM has {name} loaded still, and {bad} no more")
    place.play("train", "status")
    place.play("train", "history")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main() -> int:
    """Play it; gives the exit code."""
    parser = argparse.ArgumentParser(prog="make round-demo", description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS, help=f"steps of the first fine-tuning (default {STEPS})")
    steps: int = parser.parse_args().steps
    chosen, console, begun = load({}), Console(highlight=False), time.monotonic()
    folder = chosen.cache_dir / "round-demo"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "data").mkdir(parents=True)
    known = {name: value for name, value in os.environ.items() if not name.startswith("APPRENTICE_")}
    with ExitStack() as stack:
        teacher = stack.enter_context(serve(teach))
        operator = {
            **known,
            **SETTINGS,
            "APPRENTICE_CACHE_DIR": str(chosen.cache_dir),
            "APPRENTICE_STATE_DIR": str(folder / "state"),
            "APPRENTICE_DATA_DIR": str(folder / "data"),
            "APPRENTICE_TEACHER_URL": teacher.url,
            "APPRENTICE_TEACHER_MODEL": "scripted",
            "APPRENTICE_TRAIN_EXAMPLES": str(folder / "examples"),
        }
        place = Place(console, folder, operator)
        try:
            write_examples(folder / "examples", bad=False)
            perform(place, steps=steps)
        except DemoError as error:
            sys.stdout.flush()
            sys.stderr.write(f"error: {error}\n")
            return 1
        finally:
            if running(folder / "state"):
                place.play("student", "stop")
    console.print(f"\nAll of it took {time.monotonic() - begun:.0f} s. Reports and adapters lie in {folder / 'data'}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
