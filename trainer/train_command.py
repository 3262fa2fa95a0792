"""`apprentice train`: rounds by hand and on a schedule, what became of them, and back to an earlier adapter."""

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import structlog
from apscheduler.schedulers.background import BackgroundScheduler
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from bot.endpoint import StudentError
from bot.local.progress import Shown
from bot.parts import hidden_values, ready_store
from bot.settings import SettingsError
from bot.step import now
from bot.store import AdapterState, Store, StoreError
from bot.telemetry import set_up_logging
from trainer import dataset, report
from trainer import lineage as descent
from trainer.exam import Exam
from trainer.rollback import Liking, worse
from trainer.rollout import Rollout, RolloutError, Swapped
from trainer.round import MAX_RANK, REBUILD, CannotRunError, Graded, Round, Tools, base_model
from trainer.rounds import AnotherTrainerError, history_words, launch, states, unfinished
from trainer.schedule import Rules, due, in_window
from trainer.settings import TrainerSettings, load
from trainer.shadow import decide
from trainer.tune.config import TuneConfig
from trainer.tune.environment import ensure
from trainer.tune.launch import GRACE_SECONDS, Tuned, tune
from trainer.tune.progress import Progress as Tuning

LOOK_SECONDS = 30
AGAIN_SECONDS = 3600
"""A round that something stopped is tried again so often, and at each start."""
UPKEEP_SECONDS = 300
KEPT = timedelta(days=30)
"""How long the folder of an adapter stays that serves no more, so that one can go back to it."""
PAUSED = "paused"


log = structlog.get_logger()


class _Wrong(Exception):  # noqa: N818 -- an exit, with its words
    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code = code


@contextmanager
def _opened(**overrides: object) -> Iterator[tuple[TrainerSettings, Store]]:
    """The settings and the database; an error becomes an exit."""
    try:
        chosen = load(overrides)
        store = ready_store(chosen)
    except SettingsError as error:
        raise _Wrong(2, str(error)) from None
    except StoreError as error:
        raise _Wrong(3, str(error)) from None
    try:
        yield chosen, store
    except (CannotRunError, AnotherTrainerError) as error:
        raise _Wrong(2, str(error)) from None
    except (StoreError, RolloutError) as error:
        raise _Wrong(3, str(error)) from None
    finally:
        store.close()


def told(act: Callable[[], int]) -> int:
    """Run a command; says on stderr what is wrong, and gives the exit code."""
    try:
        return act()
    except _Wrong as wrong:
        sys.stderr.write(f"error: {wrong}\n")
        return wrong.code


# --- one round


class _Bar:
    """Shows how far a stage is."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def show(self, what: str, done: float, of: float) -> None:
        if what not in self._tasks:
            for before in self._tasks.values():
                self._progress.stop_task(before)  # its clock
            self._tasks[what] = self._progress.add_task(what, total=of or None)
        self._progress.update(self._tasks[what], completed=done, total=of or None)


def _tools(
    chosen: TrainerSettings, store: Store, show: Callable[[str, float, float], None], stop: threading.Event
) -> Tools:
    def engine(config: TuneConfig, report_: Callable[[Tuning], None]) -> Tuned:
        with Shown() as progress:
            python = ensure(chosen.cache_dir, progress)
        return tune(config, python, report_, most_seconds=chosen.train_max_hours * 3600, stop=stop)

    return Tools(chosen, store, base_model(chosen), engine, show)


def run_round(*, dry_run: bool, resume: bool, questions: int | None) -> int:
    """Run one round, or go on with the newest."""
    with _opened(train_questions=questions) as (chosen, store):
        if dry_run:
            return _plan(chosen, store)
        waiting = unfinished(chosen.trainer_dir)
        if resume and waiting is None:
            raise _Wrong(2, "There is no round to go on with: leave --resume out to begin one.")
        if waiting is not None and not resume:
            raise _Wrong(
                2,
                f"Round r{waiting.number:04d} has not ended ({waiting.failure or waiting.stage}): `--resume` goes on.",
            )
        set_up_logging(secrets=[*hidden_values(chosen), _key(chosen)], level="WARNING")
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as progress:
            stop = threading.Event()
            trainer = launch(_tools(chosen, store, _Bar(progress).show, stop))
            try:
                at = now().isoformat()
                failure = trainer.begin(f"manual {at}", "by hand", waiting.number if waiting else 0)
            except KeyboardInterrupt:
                stop.set()
                progress.console.print("Stopping: a fine-tuning writes a checkpoint first.")
                trainer.stop(GRACE_SECONDS)
                raise _Wrong(130, "The round was stopped. What is done is kept: --resume goes on.") from None
            finally:
                trainer.stop()
        number = states(chosen.trainer_dir)[-1].number
        if failure:
            raise _Wrong(3, f"Round r{number:04d} stopped: {failure}\nWhat is done is kept: --resume goes on.")
        sys.stdout.write(write_report(chosen, store, number))
        return 0


def _key(chosen: TrainerSettings) -> str:
    return chosen.teacher_api_key.get_secret_value() if chosen.teacher_api_key else ""


def _plan(chosen: TrainerSettings, store: Store) -> int:
    """Say what a round would do; changes nothing."""
    base = base_model(chosen)
    serving = store.serving_adapter()
    rows = {
        "student": f"{serving.name if serving else 'the base model'} on {base}",
        "teacher": f"{chosen.teacher_model} at {chosen.teacher_url}" if chosen.teacher_url else "none: it cannot run",
        "the teacher sees your code": "yes, without secrets" if chosen.teacher_may_see_code else "no",
        "votes": f"{sum(1 for _ in store.voted())} findings that people voted on",
        "examples": str(chosen.train_examples or "none"),
        "exam": f"{chosen.train_questions} questions",
        "lessons": f"{chosen.train_lessons}",
        "budget": f"{chosen.train_max_tokens:,} tokens"
        + (f", ${chosen.train_max_dollars:.2f}" if chosen.train_max_dollars else ""),
        "engine": f"{chosen.train_engine}, rank {chosen.train_rank}, learning rate {chosen.train_learning_rate:g}, "
        f"{chosen.train_epochs} epochs",
    }
    sys.stdout.write("".join(f"{name:<28}{words}\n" for name, words in rows.items()))
    return 0


def write_report(chosen: TrainerSettings, store: Store, number: int) -> str:
    """Write the report of a round into its folder; gives its text."""
    one = Round(Tools(chosen, store, Path(), _no_engine, lambda _what, _done, _of: None), number)
    document = report.document(
        name=one.name,
        exam=Exam.model_validate_json((one.folder / "exam.json").read_bytes()),
        graded=Graded.model_validate_json((one.folder / "grade.json").read_bytes()),
        made=dataset.read(one.folder / "dataset"),
        before=one.marks("serving"),
        after=one.marks("candidate"),
        verdict=one.verdict,
        tokens_per_second=one.made.tokens_per_second,
        base=one.marks("base"),
        seconds=next(state.seconds for state in states(chosen.trainer_dir) if state.number == number),
    )
    text = report.text(document)
    (one.folder / "report.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    (one.folder / "report.txt").write_text(text, encoding="utf-8")
    from trainer import plots  # noqa: PLC0415 -- imported late: it takes a while, and most commands draw nothing

    plots.draw(document, one.made.losses, one.made.val_losses, one.folder / "report.png")
    return text


def _no_engine(_config: TuneConfig, _report: Callable[[Tuning], None]) -> Tuned:
    raise AssertionError("a report trains nothing")


# --- a schedule


def serve() -> int:
    """Run rounds as the settings say, until a signal comes."""
    with _opened() as (chosen, store):
        if chosen.train_cron is None and chosen.train_every_votes is None:
            raise _Wrong(2, "Nothing says when: set APPRENTICE_TRAIN_CRON or APPRENTICE_TRAIN_EVERY_VOTES.")
        set_up_logging(secrets=[*hidden_values(chosen), _key(chosen)])
        stop = threading.Event()
        trainer = launch(_tools(chosen, store, lambda _what, _done, _of: None, stop))
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        scheduler = BackgroundScheduler()

        def look() -> None:
            begin_due(chosen, store, datetime.now().astimezone(), trainer.begin)

        def again() -> None:
            go_on(chosen, store, datetime.now().astimezone(), trainer.begin)

        scheduler.add_job(again, "interval", seconds=AGAIN_SECONDS, max_instances=1, coalesce=True, next_run_time=now())

        def keep_up() -> None:
            keep_order(chosen, store, base_model(chosen))

        scheduler.add_job(keep_up, "interval", seconds=UPKEEP_SECONDS, max_instances=1, coalesce=True)
        scheduler.add_job(look, "interval", seconds=LOOK_SECONDS, max_instances=1, coalesce=True, next_run_time=now())
        scheduler.start()
        stop.wait()
        scheduler.shutdown(wait=False)
        trainer.stop(GRACE_SECONDS)
        return 0


def begin_due(
    chosen: TrainerSettings, store: Store, at: datetime, begin: Callable[[str, str], str | None]
) -> str | None:
    """Begin the round that is due, if one is; says by which id."""
    folder = chosen.trainer_dir
    known = states(folder)
    last = known[-1].begun_at if known else None
    votes = sum(1 for _ in store.votes(since=last))
    rules = Rules(chosen.train_cron, chosen.train_every_votes, chosen.train_window)
    serving = store.serving_adapter()
    marked = serving.name if serving and REBUILD in serving.card else None
    begun = {state.why for state in known}
    found = due(at, last, votes, rules, paused=(folder / PAUSED).exists(), rebuild=marked)
    if found and marked and found.why in begun:  # that was tried, and what came of it was refused
        found = due(at, last, votes, rules, paused=(folder / PAUSED).exists())
    if found is None:
        return None
    begin(found.id, found.why)
    _report_newest(chosen, store)
    return found.id


def go_on(
    chosen: TrainerSettings, store: Store, at: datetime, begin: Callable[[str, str, int], str | None]
) -> str | None:
    """Go on with the newest round where something stopped it; says by which id. What was killed goes on by itself."""
    folder = chosen.trainer_dir
    waiting = unfinished(folder)
    if waiting is None or waiting.failure is None:
        return None
    if (folder / PAUSED).exists() or not in_window(at, chosen.train_window):
        return None
    id_ = f"again {waiting.number} {at.isoformat()}"
    begin(id_, waiting.why, waiting.number)
    _report_newest(chosen, store)
    return id_


def _report_newest(chosen: TrainerSettings, store: Store) -> None:
    for state in states(chosen.trainer_dir)[-1:]:
        if state.ended_at:
            write_report(chosen, store, state.number)
        elif state.failure:
            log.warning("round stopped", round=state.number, stage=state.stage, why=state.failure)


def keep_order(chosen: TrainerSettings, store: Store, base: Path) -> Swapped | None:
    """Take the serving adapter back if people like it less than the one before; then load and unload what is left to.

    What cannot be done now is logged, and done the next time.
    """
    swap = Rollout(store, chosen, base=base, max_rank=MAX_RANK)
    swapped = None
    try:
        if why := rollback_due(store, least=chosen.train_rollback_votes, alpha=chosen.train_alpha):
            swapped = swap.rollback()
            if swapped.before:
                store.mark_adapter(swapped.before, AdapterState.REFUSED)
            log.warning("rolled back", adapter=swapped.before, serving=swapped.serving or "the base model", why=why)
        leave_shadow(chosen, store, swap)
        loaded = swap.restore()
        swap.prune(now() - KEPT)
    except (RolloutError, StudentError, StoreError) as error:
        log.warning("upkeep failed", why=str(error))
        return swapped
    for problem in loaded.problems:
        log.warning("left to do", what=problem)
    return swapped


def leave_shadow(chosen: TrainerSettings, store: Store, swap: Rollout) -> None:
    """Let the adapter in the shadow serve, or refuse it, when it has made enough reviews unseen.

    Raises:
        RolloutError: it cannot be done now.
    """
    shadow = store.shadow_adapter()
    reviews = store.besides(shadow.name) if shadow else ()
    if shadow is None or not reviews or len(reviews) < chosen.train_shadow_reviews:
        return
    votes = list(store.votes())
    liked, disliked = ({vote.fingerprint for vote in votes if vote.up is up} for up in (True, False))
    verdict = decide(reviews, liked, disliked)
    if verdict.promoted:
        swap.roll_out(shadow.name)
    else:
        store.mark_adapter(shadow.name, AdapterState.REFUSED)
        swap.withdraw(shadow.name)
    log.warning("left the shadow", adapter=shadow.name, why=verdict.words)


def rollback_due(store: Store, *, least: int, alpha: float) -> str | None:
    """Why the serving adapter should be taken back; None where nothing shows that."""
    serving = store.serving_adapter()
    if serving is None:
        return None
    votes = store.votes_by_adapter()
    new, old = (Liking(*votes.get(name, (0, 0))) for name in (serving.name, serving.predecessor))
    return worse(new, old, least=least, alpha=alpha)


# --- what there is


def status() -> int:
    """Say what serves, and how the newest round is."""
    with _opened() as (chosen, store):
        serving = store.serving_adapter()
        shadow, known = store.shadow_adapter(), states(chosen.trainer_dir)
        since = known[-1].begun_at if known else None
        rows = {
            "serving": (serving.name if serving else "the base model")
            + (
                f" ({serving.card[REBUILD]}: the next round makes another)"
                if serving and REBUILD in serving.card
                else ""
            ),
            **({"in the shadow": f"{shadow.name}, {len(store.besides(shadow.name))} reviews"} if shadow else {}),
            "rounds": "paused" if (chosen.trainer_dir / PAUSED).exists() else "as the schedule says",
            "new votes": str(sum(1 for _ in store.votes(since=since))),
            "newest round": (history_words(known[-1:], chosen.trainer_dir) or ["none yet"])[0],
        }
        sys.stdout.write("".join(f"{name:<14}{words}\n" for name, words in rows.items()))
        return 0


def history() -> int:
    """List all rounds and adapters."""
    with _opened() as (chosen, store):
        lines = history_words(states(chosen.trainer_dir), chosen.trainer_dir)
        lines += [f"{one.name}  {one.state}  on {one.parent or one.base}" for one in store.adapters()]
        sys.stdout.write("".join(f"{line}\n" for line in lines) or "Nothing yet.\n")
        return 0


def lineage(review: str | None, note: tuple[int, int] | None) -> int:
    """Say what a comment or review comes from."""
    with _opened() as (chosen, store):
        try:
            found = descent.of_note(store, *note) if note else descent.of_review(store, str(review))
        except descent.UnknownOriginError as error:
            raise _Wrong(2, str(error)) from None
        sys.stdout.write("".join(f"{line}\n" for line in descent.words(found, chosen.trainer_dir)))
        return 0


def rollback(to: str | None) -> int:
    """Go back to an earlier adapter, at once."""
    with _opened() as (chosen, store):
        swapped = Rollout(store, chosen, base=base_model(chosen), max_rank=MAX_RANK).rollback(to)
        sys.stdout.write(
            f"{swapped.before or 'the base model'} served; {swapped.serving or 'the base model'} serves.\n"
        )
        sys.stdout.write("".join(f"left to do: {problem}\n" for problem in swapped.problems))
        return 0


def pause(*, paused: bool) -> int:
    """Hold the schedule, or let it go on; a round that runs is not touched."""
    with _opened() as (chosen, _):
        mark = chosen.trainer_dir / PAUSED
        if paused:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
        else:
            mark.unlink(missing_ok=True)
        sys.stdout.write("No round begins by itself.\n" if paused else "Rounds begin as the schedule says.\n")
        return 0
