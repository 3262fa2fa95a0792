"""Questions and lessons that the teacher writes, checked before anybody sees them.

What of the team's code the teacher sees, and whether any, is the operator's word (`teacher_may_see_code`).
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from bot.answer import SEVERITY_LABELS
from bot.domain import Category
from bot.prompt import annotate
from trainer.blueprint import Level
from trainer.example import Lineage, Origin, Skill, Task
from trainer.leak import Seen
from trainer.sources.files import RowError, read_row, tasks_of
from trainer.teacher import Teacher, TeacherError, question

AT_ONCE = 4
"""Questions of one request: a long answer is cut more often, and costs all of it."""
TURNS = 3
"""How often the teacher is asked for what is still missing."""
EACH_TOKENS = 700
"""Room for one question: forty lines of code, and what is said about them."""
SAMPLES = 2
"""Changes of the team's in one request."""

Purpose = Literal["exam", "lessons"]

SCHEMA: Mapping[str, object] = {
    "type": "object",
    "properties": {
        "questions": {
            "type": "array",
            "maxItems": AT_ONCE,
            "items": {
                "type": "object",
                "properties": {
                    "path": {"type": "string", "maxLength": 200},
                    "code": {"type": "string", "maxLength": 4000},
                    "line": {"type": "integer"},
                    "severity": {"enum": list(SEVERITY_LABELS)},
                    "category": {"enum": [category.value for category in Category]},
                    "title": {"type": "string", "maxLength": 80},
                    "explanation": {"type": "string", "maxLength": 400},
                },
                "required": ["path", "code", "line", "severity", "category", "title", "explanation"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["questions"],
    "additionalProperties": False,
}


class _Written(BaseModel):
    """The teacher's answer; what its questions are worth is looked at one by one."""

    model_config = ConfigDict(frozen=True)

    questions: list[dict[str, object]] = Field(max_length=100)


@dataclass(frozen=True, slots=True)
class Written:
    """What came of it.

    Args:
        tasks: that can be used.
        dropped: those that cannot, and requests that came to nothing, by reason.
    """

    tasks: tuple[Task, ...]
    dropped: Mapping[str, int]


async def write(
    teacher: Teacher,
    wanted: Mapping[Skill, int],
    *,
    purpose: Purpose,
    source: str,
    results: Sequence[str],
    samples: Iterable[Task],
    may_see_code: bool,
    excluded: Seen,
    level: Callable[[Skill], Level] = lambda _: "medium",
) -> Written:
    """Have the teacher write tasks.

    Args:
        teacher: who writes.
        wanted: how many of which skill.
        purpose: what for.
        source: where they come from, for their lineage: the round.
        results: of the last exam, in words.
        samples: tasks of the team's; used only with `may_see_code`.
        may_see_code: whether the teacher may see them.
        excluded: what no task may be near; those that are made are added.
        level: of the lessons in a skill.

    Raises:
        BudgetSpentError: it would cost too much. What was answered is kept by the teacher.
        TeacherError: it answers nothing at all.
    """
    state = _State(Counter(wanted), excluded, source)
    shown = _by_severity(samples) if may_see_code else {}
    for turn in range(TURNS):
        requests = list(_requests(+state.missing))
        asked = [
            question(
                "questions.jinja",
                purpose=purpose,
                level=level(skill),
                data=[annotate(task.question.part) for task in shown.get(skill.severity, [])[:SAMPLES]],
                results=results,
                wanted=[{**asdict(skill), "count": count}],
                number=f"{turn + 1}.{place}",
            )
            for place, (skill, count) in enumerate(requests, start=1)
        ]
        answers = await asyncio.gather(
            *(
                teacher.ask(messages, _Written, SCHEMA, max_tokens=EACH_TOKENS * count)
                for messages, (_, count) in zip(asked, requests, strict=True)
            ),
            return_exceptions=True,  # the others are paid for: they are waited for, and kept
        )
        state.take_all(requests, answers)
    if short := sum((+state.missing).values()):
        state.dropped["asked for and not written"] += short
    return Written(tuple(state.made), dict(+state.dropped))


def _requests(missing: Mapping[Skill, int]) -> Iterator[tuple[Skill, int]]:
    """Some questions of one skill a request, and all of them in the end."""
    for skill in sorted(missing):
        for begun in range(0, missing[skill], AT_ONCE):
            yield skill, min(AT_ONCE, missing[skill] - begun)


def _by_severity(tasks: Iterable[Task]) -> dict[str, list[Task]]:
    found: defaultdict[str, list[Task]] = defaultdict(list)
    for task in sorted(tasks, key=lambda task: task.id):
        found[task.answer.severity].append(task)
    return found


@dataclass(slots=True)
class _State:
    """How far a writing is."""

    missing: Counter[Skill]
    excluded: Seen
    source: str
    dropped: Counter[str] = field(default_factory=Counter)
    made: list[Task] = field(default_factory=list)

    def take_all(self, requests: Sequence[tuple[Skill, int]], answers: Sequence[_Written | BaseException]) -> None:
        """Take what was answered, in the order in which it was asked for."""
        failed = [answer for answer in answers if isinstance(answer, BaseException)]
        for error in failed:
            if not isinstance(error, TeacherError):
                raise error
        self.dropped["the teacher gave no usable answer"] += len(failed)
        for (skill, _), answer in zip(requests, answers, strict=True):
            if not isinstance(answer, BaseException):
                for row in answer.questions:
                    self.take(row, skill)
        if failed and len(failed) == len(answers) and not self.made:
            raise TeacherError(f"{failed[-1]} (none of {len(failed)} requests was answered)")

    def take(self, row: dict[str, object], asked: Skill) -> None:
        """Take the task that a row makes, unless something is wrong with it, which is counted."""
        try:
            tasks = tasks_of(read_row(row), Origin.TEACHER, Lineage(source=self.source))
        except RowError as error:
            self.dropped[f"cannot be used: {str(error).split(':')[0]}"] += 1
            return
        task = tasks[0]
        if len(tasks) > 1:
            self.dropped["too long"] += 1
        elif task.skill != asked:
            self.dropped["of another skill than was asked for"] += 1
        elif self.missing[task.skill] <= 0:
            self.dropped["more than were asked for"] += 1
        elif self.excluded.near(task):
            self.dropped["near one that is there already"] += 1
        else:
            self.excluded.add(task)
            self.missing[task.skill] -= 1
            self.made.append(task)
