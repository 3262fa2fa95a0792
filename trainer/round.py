"""One round: exam, sitting, grade, curriculum, fine-tune, gate, rollout. `trainer.rounds` makes it durable.

Each stage looks for what an earlier attempt has written and goes on from there: it may be killed at any point and be
run again. What a stage makes lies in the folder of the round; only the last one, the rollout, changes what reviews.
"""

import asyncio
import hashlib
import importlib.metadata
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from bot.answer import NONE
from bot.domain import Usage
from bot.interview import connect, find_endpoint
from bot.local.environment import Device, find_device
from bot.local.files import write_private
from bot.local.state import running
from bot.prompt import prompt_id
from bot.review import Speaker
from bot.step import now
from bot.store import AdapterState, Store
from trainer import dataset, rollout, writer
from trainer.adapter import Card, fingerprint, next_name, publish
from trainer.blueprint import blueprint, level
from trainer.budget import Budget
from trainer.dataset import Dataset, build, chat_rows, in_share
from trainer.exam import Answer, Exam, Mark, Sitting, mark
from trainer.example import Origin, Skill, Task
from trainer.gate import Verdict, decide
from trainer.grade import Feedback, Proficiency, Scores, feedback, proficiency, score
from trainer.judge import compare
from trainer.leak import Seen, distinct, without_leaks
from trainer.mix import Limits, mix
from trainer.settings import TrainerSettings
from trainer.sit import kept, sit
from trainer.sources.files import read_examples
from trainer.sources.votes import task_of
from trainer.teacher import Teacher
from trainer.tune.check import base_problems, space_problems
from trainer.tune.config import TuneConfig
from trainer.tune.launch import Tuned
from trainer.tune.progress import Progress

HELDOUT_PERCENT, VAL_PERCENT = 20, 10
LABELLED_SHARE = 0.5
"""Of an exam's questions, those that are taken from labelled tasks, as far as there are enough: they cost nothing."""
MAX_RANK = 128
REBUILD = "rebuild"
"""What stands in the card of an adapter that has learnt from something that was forgotten: why, in words."""
SERVING, CANDIDATE, BASE = "serving", "candidate", "base"


class CannotRunError(RuntimeError):
    """A round cannot be run; the message says why, and the way out. Nothing was changed."""


class Graded(BaseModel):
    """What an exam has shown, as it is kept for the next one."""

    model_config = ConfigDict(frozen=True)

    proficiency: list[tuple[Skill, Proficiency]]
    strengths: tuple[str, ...]
    weaknesses: tuple[str, ...]
    explanations: dict[str, int] = {}

    @property
    def words(self) -> tuple[str, ...]:
        """All of it, for the teacher."""
        return (*(f"good: {each}" for each in self.strengths), *(f"weak: {each}" for each in self.weaknesses))


class Examined(BaseModel):
    """A sitting of the held-out set, in figures and marks."""

    model_config = ConfigDict(frozen=True)

    adapter: str | None
    marks: tuple[Mark, ...]


class Made(BaseModel):
    """A candidate.

    Args:
        name: of the adapter.
        before: who served when it was made (what serves may change meanwhile by hand); None: the base model.
        losses: (step, loss) over the training rows; `val_losses`: over the validation rows.
        tokens_per_second: of its training.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    before: str | None
    losses: tuple[tuple[int, float], ...]
    val_losses: tuple[tuple[int, float], ...]
    tokens_per_second: float


class Decided(BaseModel):
    """What the gate has said."""

    model_config = ConfigDict(frozen=True)

    promoted: bool
    words: str
    checks: tuple[tuple[bool, str], ...]


Show = Callable[[str, float, float], None]
"""Told what is done, how far it is, and of how much."""

_Taught = TypeVar("_Taught")

Engine = Callable[[TuneConfig, Callable[[Progress], None]], Tuned]


@dataclass(frozen=True, slots=True)
class Tools:
    """What a round works with.

    Args:
        chosen: the settings in force.
        store: what the bot remembers.
        base: the folder of the student's base model.
        engine: fine-tunes by a configuration.
        show: see `Show`.
    """

    chosen: TrainerSettings
    store: Store
    base: Path
    engine: Engine
    show: Show

    @property
    def folder(self) -> Path:
        """Where the loop keeps its things."""
        return self.chosen.trainer_dir


def base_model(chosen: TrainerSettings) -> Path:
    """The folder of the student's base model.

    Raises:
        CannotRunError: nobody says where it is.
    """
    if chosen.train_base is not None:
        return chosen.train_base
    local = running(chosen.state_dir)
    if local is None or local.tokenizer is None:
        raise CannotRunError(
            "Nobody says where the student's base model is: set APPRENTICE_TRAIN_BASE to its folder, or start a "
            "student on this machine (`apprentice student start`)."
        )
    return local.tokenizer.parent


def rounds(folder: Path) -> list[int]:
    """The numbers of all rounds, the oldest first."""
    there = (path.name.removeprefix("r") for path in (folder / "rounds").glob("r*"))
    return sorted(int(number) for number in there if number.isdecimal())


class Round:
    """The stages of one round, in their order: each may be run again.

    Args:
        tools: what it works with.
        number: of the round.
    """

    def __init__(self, tools: Tools, number: int) -> None:
        self.tools = tools
        self.number = number
        self.name = f"r{number:04d}"
        self.folder = tools.folder / "rounds" / self.name

    # --- what there is to work with

    def gather(self) -> None:
        """Collect labelled tasks from votes and files, and freeze the held-out set in the first round.

        Raises:
            CannotRunError: there are too few, no teacher is set, the base model cannot be tuned, or there is no room.
        """
        chosen = self.tools.chosen
        if chosen.teacher_url is None or chosen.teacher_model is None:
            raise CannotRunError("No teacher is set: APPRENTICE_TEACHER_URL and APPRENTICE_TEACHER_MODEL name one.")
        if (self.folder / "tasks").is_dir():
            return
        # What a folder lacks, or a machine, costs no teacher if it is found now.
        if problems := base_problems(self.tools.base) or space_problems(self._config(), 0):
            raise CannotRunError("; ".join(problems))
        found = [task for voted in self.tools.store.voted() if (task := task_of(voted))]
        unusable: list[str] = []
        for path in sorted(chosen.train_examples.glob("*.jsonl")) if chosen.train_examples else []:
            loaded = read_examples(path)
            found += loaded.tasks
            unusable += loaded.problems
        tasks = list(distinct(sorted(found, key=lambda task: (-task.weight, task.id))))
        if len(tasks) < chosen.train_least_tasks:
            raise CannotRunError(
                f"There are {len(tasks)} labelled items (votes and examples), and {chosen.train_least_tasks} are the "
                "least (APPRENTICE_TRAIN_LEAST_TASKS): wait for votes, or name a folder of examples "
                "(APPRENTICE_TRAIN_EXAMPLES)."
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.tools.folder / "heldout").is_dir():
            self._freeze(tasks)
        left = tuple(without_leaks(tasks, self._heldout().train))
        Dataset(left, ()).write(self.folder / "tasks", {"rows that cannot be used": len(unusable)} if unusable else {})

    def _freeze(self, tasks: Sequence[Task]) -> None:
        aside = [task for task in tasks if in_share(task, "heldout", HELDOUT_PERCENT)]
        held = Dataset(tuple(sorted(aside, key=lambda task: task.id)[: self.tools.chosen.train_heldout]), ())
        severities = {task.answer.severity for task in held.train}
        if NONE not in severities or severities == {NONE}:
            raise CannotRunError(
                "The held-out set needs clean changes and problems, and the labelled items that fall into it are all "
                "of one kind: add examples of the other (APPRENTICE_TRAIN_EXAMPLES)."
            )
        held.write(self.tools.folder / "heldout")

    def _heldout(self) -> Dataset:
        return dataset.read(self.tools.folder / "heldout")

    def _tasks(self) -> tuple[Task, ...]:
        return dataset.read(self.folder / "tasks").train

    # --- exam

    def write_exam(self) -> None:
        """Write the exam: from labelled tasks, and by the teacher.

        Raises:
            TeacherError: the teacher gives nothing. BudgetSpentError: it would cost too much.
        """
        path = self.folder / "exam.json"
        if path.is_file():
            return
        chosen, tasks = self.tools.chosen, self._tasks()
        there = Counter(task.skill for task in tasks)
        known = dict(previous.proficiency) if (previous := self._previous()) else {}
        wanted = blueprint(there, known, chosen.train_questions)
        labelled = self._choose(tasks, wanted, int(chosen.train_questions * LABELLED_SHARE))
        left = Counter(wanted)
        left.subtract(Counter(task.skill for task in labelled))
        seen = Seen([*self._heldout().train, *labelled])
        made = self._teach(
            lambda teacher: writer.write(
                teacher,
                +left,
                purpose="exam",
                source=f"round {self.name}",
                results=previous.words if previous else (),
                samples=tasks,
                may_see_code=chosen.teacher_may_see_code,
                excluded=seen,
            )
        )
        exam = Exam(id=self.name, tasks=(*labelled, *made.tasks), dropped=dict(made.dropped))
        write_private(path, exam.model_dump_json())

    def _choose(self, tasks: Sequence[Task], wanted: Mapping[Skill, int], most: int) -> tuple[Task, ...]:
        """Labelled tasks for an exam, no two rounds the same."""
        chosen: list[Task] = []
        room = Counter(blueprint(wanted, {}, most, only_there=True))
        for task in sorted(tasks, key=lambda task: _drawn(self.name, task)):
            if room[task.skill] > 0:
                room[task.skill] -= 1
                chosen.append(task)
        return tuple(chosen)

    def _previous(self) -> Graded | None:
        for number in reversed(rounds(self.tools.folder)):
            path = self.tools.folder / "rounds" / f"r{number:04d}" / "grade.json"
            if number < self.number and path.is_file():
                return Graded.model_validate_json(path.read_bytes())
        return None

    def sit_exam(self) -> None:
        """Have the student that serves sit the exam.

        Raises:
            StudentError: it cannot be asked. What it has answered is kept.
        """
        exam = self._exam()
        self._sit(exam, self._serving(), "sitting.jsonl")

    def grade(self) -> None:
        """Mark the sitting: proficiency per skill, strengths and weaknesses, for the curriculum and the next exam."""
        path = self.folder / "grade.json"
        if path.is_file():
            return
        exam = self._exam()
        sitting = self._sit(exam, self._serving(), "sitting.jsonl")
        marks, explanations = mark(exam, sitting), self._judge(exam, sitting)
        told: Feedback = feedback(marks, explanations)
        graded = Graded(
            proficiency=list(proficiency(marks).items()),
            strengths=told.strengths,
            weaknesses=told.weaknesses,
            explanations=explanations,
        )
        write_private(path, graded.model_dump_json())

    def _judge(self, exam: Exam, sitting: Sitting) -> dict[str, int]:
        """Have the teacher judge the explanations of what was taken for a problem and is one."""
        seen = self.tools.chosen.teacher_may_see_code
        said = {answer.task: answer.suspect for answer in sitting.answers}
        explained = [
            (task, suspect.explanation)
            for task in exam.tasks
            if not task.clean and (seen or task.origin is Origin.TEACHER)
            if (suspect := said[task.id]) is not None and suspect.severity != NONE
        ]
        return self._teach(lambda teacher: compare(teacher, explained)) if explained else {}

    def _exam(self) -> Exam:
        return Exam.model_validate_json((self.folder / "exam.json").read_bytes())

    # --- curriculum

    def write_curriculum(self) -> None:
        """Write lessons at the weak skills, and merge them with labelled tasks and what was learnt from before.

        Raises:
            TeacherError: the teacher gives nothing. BudgetSpentError: it would cost too much.
        """
        folder = self.folder / "dataset"
        if folder.is_dir():
            return
        chosen, tasks, heldout = self.tools.chosen, self._tasks(), self._heldout().train
        graded = Graded.model_validate_json((self.folder / "grade.json").read_bytes())
        known = dict(graded.proficiency)
        there = Counter(task.skill for task in (*tasks, *self._exam().tasks))
        wanted = blueprint(there, known, chosen.train_lessons)
        lessons = self._teach(
            lambda teacher: writer.write(
                teacher,
                wanted,
                purpose="lessons",
                source=f"round {self.name}",
                results=graded.words,
                samples=tasks,
                may_see_code=chosen.teacher_may_see_code,
                excluded=Seen([*heldout, *self._exam().tasks]),
                level=lambda skill: level(known.get(skill)),
            )
        )
        before = self.tools.folder / "dataset"
        old = dataset.read(before) if before.is_dir() else Dataset((), ())
        mixed = mix((*tasks, *lessons.tasks), (*old.train, *old.val), heldout, Limits(), seed=chosen.train_seed)
        made = build(mixed.tasks, val_percent=VAL_PERCENT)
        if not made.train or not made.val:
            raise CannotRunError(f"There are {len(mixed.tasks)} examples to learn from: too few to divide.")
        self._no_leak(made, heldout)
        made.write(folder, {**lessons.dropped, **mixed.dropped})

    @staticmethod
    def _no_leak(made: Dataset, heldout: Sequence[Task]) -> None:
        secret = Seen(heldout)
        for task in (*made.train, *made.val):
            if near := secret.near(task):
                raise AssertionError(f"{task.id} is near {near} of the held-out set")

    # --- fine-tune

    def fine_tune(self) -> None:
        """Fine-tune the student on it, and publish what comes of it as a candidate.

        Raises:
            TuneError: it cannot be done, or was stopped; run again, it goes on.
            AdapterError: what came of it cannot be served.
        """
        if (self.folder / "candidate.json").is_file():
            return
        data = dataset.read(self.folder / "dataset")
        config = self._config()
        for path, tasks in ((config.train, data.train), (config.val, data.val)):
            path.write_text("".join(f"{row}\n" for row in chat_rows(tasks)), encoding="utf-8")
        tuned = self.tools.engine(config, lambda seen: self.tools.show("fine-tuning", seen.step, seen.of))
        known = self.tools.store.adapters()
        mine = [one.name for one in known if one.card.get("round") == self.name]  # of an attempt that was killed
        name = mine[0] if mine else next_name(one.name for one in known)
        serving = self._serving_to_beat()
        card = Card(
            name=name,
            base=self._base_name(),
            fingerprint=fingerprint(self.tools.base),
            parent=serving,
            round=self.name,
            dataset=data.hash,
            prompt_id=prompt_id(),
            hyper_parameters=json.loads(config.model_dump_json(exclude={"base", "train", "val", "folder"})),
            scores={"val_loss": tuned.val_loss, "steps": tuned.steps},
            versions={**tuned.versions, "apprentice": importlib.metadata.version("apprentice")},
            created_at=now(),
        )
        folder = publish(
            tuned.adapter, name, card, self.tools.folder / "adapters", base=self.tools.base, max_rank=MAX_RANK
        )
        whole = Card.model_validate_json((folder / "card.json").read_bytes())
        self.tools.store.register_adapter(
            name,
            base=whole.base,
            parent=serving,
            card=whole.model_dump(mode="json"),
            state=AdapterState.CANDIDATE,
            at=now(),
        )
        made = Made(
            name=name,
            before=serving,
            losses=tuned.losses,
            val_losses=tuned.val_losses,
            tokens_per_second=round(tuned.tokens_per_second, 1),
        )
        write_private(self.folder / "candidate.json", made.model_dump_json())

    def _config(self) -> TuneConfig:
        chosen, device = self.tools.chosen, find_device()
        return TuneConfig(
            engine=chosen.train_engine,
            base=self.tools.base,
            train=self.folder / "train.jsonl",
            val=self.folder / "val.jsonl",
            folder=self.folder / "tune",
            rank=chosen.train_rank,
            alpha=2 * chosen.train_rank,
            learning_rate=chosen.train_learning_rate,
            epochs=chosen.train_epochs,
            max_steps=chosen.train_max_steps,
            batch=chosen.train_batch,
            micro_batch=chosen.train_micro_batch,
            devices=chosen.train_devices,
            packing=chosen.train_packing,
            sequence_tokens=chosen.train_sequence_tokens,
            long_rows="drop",
            seed=chosen.train_seed,
            device=device.value,
            precision="bfloat16" if device is Device.GPU else "float32",
        )

    @property
    def made(self) -> Made:
        """What the fine-tuning of this round has made."""
        return Made.model_validate_json((self.folder / "candidate.json").read_bytes())

    @property
    def candidate(self) -> str:
        """The adapter that this round has made."""
        return self.made.name

    # --- gate and rollout

    def examine(self) -> None:
        """Have the candidate and the one that serves sit the held-out set, through vLLM.

        Raises:
            RolloutError: the candidate cannot be loaded. StudentError: one cannot be asked.
        """
        if (self.folder / "marks.json").is_file():
            return
        exam = Exam(id=f"heldout {self._heldout().hash}", tasks=self._heldout().train)
        self._rollout().try_out(self.candidate)
        sat = {
            SERVING: (before := self.made.before, self._sit(exam, before, "heldout-serving.jsonl")),
            CANDIDATE: (self.candidate, self._sit(exam, self.candidate, "heldout-candidate.jsonl")),
        }
        if before is not None:
            sat[BASE] = (None, self._sit(exam, None, "heldout-base.jsonl"))
        told = {who: Examined(adapter=name, marks=mark(exam, its)) for who, (name, its) in sat.items()}
        write_private(self.folder / "marks.json", json.dumps({w: e.model_dump(mode="json") for w, e in told.items()}))

    def marks(self, who: Literal["serving", "candidate", "base"]) -> Examined:
        """The marks of the held-out set; where the base model serves, its own are those of `serving`."""
        known = json.loads((self.folder / "marks.json").read_bytes())
        return Examined.model_validate(known.get(who, known[SERVING]))

    def decide(self) -> None:
        """Ask the gate."""
        verdict: Verdict = decide(
            self.marks("candidate").marks,
            self.marks("serving").marks,
            alpha=self.tools.chosen.train_alpha,
            base=self.marks("base").marks if self.made.before is not None else None,
        )
        told = Decided(
            promoted=verdict.promoted,
            words=verdict.words,
            checks=tuple((check.holds, check.words) for check in verdict.checks),
        )
        write_private(self.folder / "verdict.json", told.model_dump_json(indent=2))

    @property
    def verdict(self) -> Decided:
        """What the gate has said."""
        return Decided.model_validate_json((self.folder / "verdict.json").read_bytes())

    def roll_out(self) -> None:
        """Let the candidate serve, or go into the shadow first, where the gate says so; else unload it.

        Raises:
            RolloutError: it cannot be done. What served serves on.
        """
        store = self.tools.store
        if self.verdict.promoted and self.tools.chosen.train_shadow_reviews:
            if (overtaken := store.shadow_adapter()) is not None and overtaken.name != self.candidate:
                store.mark_adapter(overtaken.name, AdapterState.REFUSED)
            store.mark_adapter(self.candidate, AdapterState.SHADOW)
            dataset.read(self.folder / "dataset").write(self.tools.folder / "dataset")
        elif self.verdict.promoted:
            self._rollout().roll_out(self.candidate, [task.question for task in self._heldout().train[:2]])
            dataset.read(self.folder / "dataset").write(self.tools.folder / "dataset")
        else:
            store.mark_adapter(self.candidate, AdapterState.REFUSED)
            self._rollout().withdraw(self.candidate)

    # --- helpers

    def scores(self) -> tuple[Scores, Scores]:
        """The figures of the held-out set: before, and after."""
        return score(self.marks("serving").marks), score(self.marks("candidate").marks)

    def _rollout(self) -> rollout.Rollout:
        return rollout.Rollout(self.tools.store, self.tools.chosen, base=self.tools.base, max_rank=MAX_RANK)

    def _serving(self) -> str | None:
        if self.tools.chosen.student_adapter:
            return self.tools.chosen.student_adapter
        serving = self.tools.store.serving_adapter()
        return serving.name if serving else None

    def _serving_to_beat(self) -> str | None:
        """What serves; an adapter that has learnt from what was forgotten counts for nothing."""
        serving = self._serving()
        known = self.tools.store.adapter(serving) if serving else None
        return None if known is not None and REBUILD in known.card else serving

    def _base_name(self) -> str:
        async def ask() -> str:
            async with connect(find_endpoint(self.tools.chosen), self.tools.chosen, None) as student:
                return (await student.base()).id

        return asyncio.run(ask())

    def _sit(self, exam: Exam, adapter: str | None, file: str) -> Sitting:
        chosen, total = self.tools.chosen, len(exam.tasks)

        async def go() -> Sitting:
            async with connect(find_endpoint(chosen), chosen, adapter) as student:
                speaker = Speaker((await student.base()).id, adapter)
                with kept(self.folder / file, exam, speaker) as (known, keep):
                    done = len(known)

                    def kept_and_shown(answer: Answer) -> None:
                        nonlocal done
                        keep(answer)
                        done += 1
                        self.tools.show(f"{adapter or 'the base model'} sits {exam.id}", done, total)

                    return await sit(
                        exam,
                        student,
                        speaker,
                        known=known,
                        concurrency=chosen.student_concurrency,
                        keep=kept_and_shown,
                    )

        return asyncio.run(go())

    def _teach(self, ask: Callable[[Teacher], Awaitable[_Taught]]) -> _Taught:
        chosen, spent = self.tools.chosen, self.folder / "spent.json"
        budget = Budget(
            chosen.train_max_tokens,
            chosen.train_max_dollars,
            chosen.teacher_price_in,
            chosen.teacher_price_out,
            spent=Usage(**json.loads(spent.read_bytes())) if spent.is_file() else Usage(),
            keep=lambda usage: write_private(spent, json.dumps(asdict(usage))),
        )

        async def go() -> _Taught:
            async with Teacher(chosen, self.tools.folder / "teacher", budget) as teacher:
                return await ask(teacher)

        return asyncio.run(go())


def _drawn(salt: str, task: Task) -> bytes:
    """An order of tasks that is another one for each salt."""
    return hashlib.sha256(f"{salt} {task.id}".encode()).digest()
