"""The whole command line: the bot's, and that of the learning loop. `apprentice` begins here."""

from pathlib import Path
from typing import Annotated

import typer

from bot import cli

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


def main() -> None:
    """Run the command line."""
    cli.main()
