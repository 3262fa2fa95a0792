"""The whole command line: the bot's, and that of the learning loop. `apprentice` begins here."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bot import cli, forgetting

if TYPE_CHECKING:
    from bot.settings import Settings
    from bot.store import Store


def _forget(chosen: "Settings", store: "Store", whose: forgetting.Whose) -> Mapping[str, int]:
    from trainer import forget  # noqa: PLC0415 -- as every command: only when it is asked for

    return forget.forget(chosen, store, whose)


forgetting.ALSO.append(_forget)

exam_app = typer.Typer(
    no_args_is_help=True,
    help="Compare models and adapters by the same questions.",
    rich_markup_mode="markdown",
)
cli.app.add_typer(exam_app, name="exam")

_EXAM = typer.Option("--exam", metavar="FILE", help="The exam, as `exam make` writes it.")


@exam_app.command()
def make(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="EXAMPLES...", help="Files of labelled examples, JSON lines."),
    ],
    *,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write the exam.")] = Path("exam.json"),
) -> None:
    """Make an exam of labelled examples: changes, each with what a good reviewer says about it.

    Exit codes: 0 done (rows that cannot be used are named and left out); 2 there is no question in that.
    """
    from trainer import exam_command  # noqa: PLC0415 -- as every command: only when it is asked for

    raise typer.Exit(exam_command.make(sources, out))


@exam_app.command()
def sit(
    *,
    exam: Annotated[Path, _EXAM],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to keep the answers.")],
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="NAME", help="The model at the endpoint; else the settings'."),
    ] = None,
    adapter: Annotated[
        str | None, typer.Option("--adapter", metavar="NAME", help="The LoRA adapter that answers; none else.")
    ] = None,
    url: Annotated[
        str | None, typer.Option("--url", metavar="URL", help="Another endpoint than that of the settings, with /v1.")
    ] = None,
) -> None:
    """Have a model or adapter sit an exam. Each answer is kept at once; run it again, and it goes on.

    Exit codes: 0 done; 2 a file, the settings or the command line are wrong; 3 the endpoint failed.
    """
    from bot.settings import SettingsError, load  # noqa: PLC0415 -- as every command: only when it is asked for
    from trainer import exam_command  # noqa: PLC0415 -- the same

    try:
        chosen = load({"student_model": model, "student_adapter": adapter, "student_url": url})
    except SettingsError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    raise typer.Exit(exam_command.take(exam, out, chosen))


@exam_app.command()
def grade(
    *,
    exam: Annotated[Path, _EXAM],
    sitting: Annotated[Path, typer.Option("--sitting", metavar="FILE", help="The answers, as `exam sit` kept them.")],
    against: Annotated[
        Path | None, typer.Option("--against", metavar="FILE", help="Answers to compare with: is the sitting better?")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Mark a sitting: accuracy of the severities, false alarms, confusion matrix, what it is good and weak at.

    With --against, also says whether the sitting is better by the rules of the gate: the exact test of McNemar, and no
    worse in anything that matters. Exit codes: 0 done; 2 a file cannot be used.
    """
    from trainer import exam_command  # noqa: PLC0415 -- as every command: only when it is asked for

    raise typer.Exit(exam_command.grade(exam, sitting, against, as_json=as_json))


train_app = typer.Typer(
    no_args_is_help=True,
    help="Make the student better: exam, lessons, LoRA fine-tune, gate, rollout.",
    rich_markup_mode="markdown",
)
cli.app.add_typer(train_app, name="train")


@train_app.command("round")
def round_(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the newest round, where it was.")] = False,
    max_questions: Annotated[
        int | None, typer.Option("--max-questions", metavar="N", min=5, help="Questions of the exam.")
    ] = None,
) -> None:
    """Run one round, from the exam to the rollout.

    The teacher writes an exam, the student sits it, lessons are written for its weak spots, an adapter is trained on
    them, and it serves if the gate finds it better, and no worse in anything that matters.

    It needs a student that runs with LoRA slots, a teacher (APPRENTICE_TEACHER_URL and APPRENTICE_TEACHER_MODEL), and
    labelled items: votes, or examples in APPRENTICE_TRAIN_EXAMPLES. Your code goes to the teacher only with
    APPRENTICE_TEACHER_MAY_SEE_CODE=true. Stopped at any point, it goes on with --resume, and pays nothing twice.

    Exit codes: 0 done, whether promoted or refused; 2 the settings are wrong, or another round runs; 3 it cannot go on
    (no teacher, too little data, no room, an error), and says why; what served serves on. 130: you have stopped it.
    """
    from trainer import train_command  # noqa: PLC0415 -- as every command: only when it is asked for

    raise typer.Exit(
        train_command.told(lambda: train_command.run_round(dry_run=dry_run, resume=resume, questions=max_questions))
    )


@train_app.command("serve")
def train_serve() -> None:
    """Run rounds on a schedule, until a signal comes: APPRENTICE_TRAIN_CRON, APPRENTICE_TRAIN_EVERY_VOTES or both.

    Never two at once; missed ticks make one round; APPRENTICE_TRAIN_WINDOW holds them to some hours of the day.
    """
    from trainer import train_command  # noqa: PLC0415 -- as every command: only when it is asked for

    raise typer.Exit(train_command.told(train_command.serve))


@train_app.command()
def status() -> None:
    """Say which adapter serves, and how the newest round is."""
    from trainer import train_command  # noqa: PLC0415 -- as every command: only when it is asked for

    raise typer.Exit(train_command.told(train_command.status))


@train_app.command()
def history() -> None:
    """List all rounds with the gate's words, and all adapters."""
    from trainer import train_command  # noqa: PLC0415 -- as every command: only when it is asked for

    raise typer.Exit(train_command.told(train_command.history))


@train_app.command()
def lineage(
    *,
    review: Annotated[str | None, typer.Option("--review", metavar="ID", help="Of this review.")] = None,
    project: Annotated[
        int | None, typer.Option("--project", metavar="ID", help="Of a comment: the number of its project in GitLab.")
    ] = None,
    note: Annotated[
        int | None, typer.Option("--note", metavar="ID", help="Of a comment: its number, as in its link (#note_ID).")
    ] = None,
) -> None:
    """Say what a comment or review comes from: adapter, rounds, datasets, and the votes and files behind them."""
    from trainer import train_command  # noqa: PLC0415 -- as every command: only when it is asked for

    if (review is None) == (project is None) or (project is None) != (note is None):
        raise typer.BadParameter("name --review, or --project and --note")
    comment = (project, note) if project is not None and note is not None else None
    raise typer.Exit(train_command.told(lambda: train_command.lineage(review, comment)))


@train_app.command()
def rollback(
    *,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="NAME", help="An adapter, or the base model; else the one before."),
    ] = None,
) -> None:
    """Let an earlier adapter serve again, at once."""
    from trainer import train_command  # noqa: PLC0415 -- as every command: only when it is asked for

    raise typer.Exit(train_command.told(lambda: train_command.rollback(to)))


@train_app.command()
def pause(*, off: Annotated[bool, typer.Option("--off", help="Let the schedule go on.")] = False) -> None:
    """Hold the schedule: no round begins by itself until `--off`. A round that runs is not touched."""
    from trainer import train_command  # noqa: PLC0415 -- as every command: only when it is asked for

    raise typer.Exit(train_command.told(lambda: train_command.pause(paused=not off)))


def main() -> None:
    """Run the command line."""
    cli.main()
