"""The command line. Each command imports what it needs when it runs, so that `--help` answers at once."""

import contextlib
import io
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bot import forgetting
from bot.local.cli import app as student_app

if TYPE_CHECKING:
    from bot.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Reviews code changes with a small model that your team runs itself.",
)
app.add_typer(student_app, name="student")


class Threshold(StrEnum):
    """The severities as words of the command line."""

    trivial = "trivial"
    minor = "minor"
    major = "major"
    critical = "critical"


class Format(StrEnum):
    """What `apprentice review` can print."""

    text = "text"
    json = "json"
    markdown = "markdown"
    sarif = "sarif"
    codequality = "codequality"


def _version(wanted: bool) -> None:  # noqa: FBT001 -- typer calls it with the flag
    if wanted:
        from bot import __version__  # noqa: PLC0415 -- as every command: only when it is asked for

        typer.echo(f"apprentice {__version__}")
        raise typer.Exit


@app.callback()
def apprentice(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Reviews code changes with a small model that your team runs itself."""


@app.command()
def review(
    *,
    url: Annotated[
        str | None,
        typer.Argument(metavar="URL", help="A merge request's page on GitLab; without it, commits of this folder."),
    ] = None,
    post: Annotated[bool, typer.Option("--post", help="With URL: say it on the merge request, too.")] = False,
    rev_range: Annotated[
        str | None, typer.Option("--range", metavar="A..B", help="Review these commits, for example main..HEAD.")
    ] = None,
    staged: Annotated[bool, typer.Option("--staged", help="Review what `git commit` would commit.")] = False,
    patch: Annotated[
        str | None, typer.Option("--patch", metavar="FILE", help="Review a diff from a file, or from stdin with `-`.")
    ] = None,
    severity: Annotated[
        Threshold | None, typer.Option("--severity", help="Lowest severity to show; the policy's otherwise.")
    ] = None,
    output_format: Annotated[Format, typer.Option("--format", help="What to print on stdout.")] = Format.text,
    fail_on: Annotated[
        Threshold | None,
        typer.Option("--fail-on", help="Exit with 1 when a finding of this severity or worse is shown."),
    ] = None,
    show_hidden: Annotated[
        bool, typer.Option("--show-hidden", help="Print hidden findings too, each with its reason.")
    ] = False,
    adapter: Annotated[
        str | None, typer.Option("--adapter", metavar="NAME", help="Let this LoRA adapter answer.")
    ] = None,
    explain_config: Annotated[
        bool, typer.Option("--explain-config", help="Print the settings and the policy in force, and stop.")
    ] = False,
) -> None:
    """Review what is not merged yet and print severity-rated findings.

    Without an option, reviews the commits of the current branch that its target branch lacks. The repository's
    own wishes stand in .apprentice.yml on the target branch. With URL, reviews a merge request of the GitLab that
    APPRENTICE_GITLAB_URL and APPRENTICE_GITLAB_TOKEN name, from any folder; nothing is posted without --post.

    Exit codes: 0 done; 1 done, and --fail-on was reached; 2 the input, the settings or the command line are
    wrong; 3 the student or GitLab could not be reached, or a part is missing (what there is, is printed).
    """
    if sum((url is not None, rev_range is not None, staged, patch is not None)) > 1:
        raise typer.BadParameter("URL, --range, --staged and --patch exclude each other")
    if post and url is None:
        raise typer.BadParameter("--post needs the URL of a merge request")
    if explain_config and url is not None:
        raise typer.BadParameter("--explain-config is about this folder: leave the URL out")
    from bot import redact, settings  # noqa: PLC0415 -- as every command: only when it is asked for

    with contextlib.suppress(settings.SettingsError):  # told below
        redact.warm_up(settings.load({}).cache_dir)  # native code: it loads beside the imports
    from bot import review_command  # noqa: PLC0415 -- as every command: only when it is asked for
    from bot.domain import Severity  # noqa: PLC0415 -- the same

    options = review_command.Options(
        folder=Path.cwd(),
        rev_range=rev_range,
        staged=staged,
        patch=patch,
        threshold=Severity(severity) if severity else None,
        output_format=output_format.value,
        fail_on=Severity(fail_on) if fail_on else None,
        show_hidden=show_hidden,
        adapter=adapter,
    )
    if url is not None:
        from bot import merge_command  # noqa: PLC0415 -- the same

        raise typer.Exit(merge_command.run(url, options, post=post))
    raise typer.Exit(review_command.explain(options) if explain_config else review_command.run(options))


class RoleChoice(StrEnum):
    """The parts of the bot."""

    all = "all"
    web = "web"
    worker = "worker"


votes_app = typer.Typer(no_args_is_help=True, help="What people thought of findings.")
app.add_typer(votes_app, name="votes")


@contextlib.contextmanager
def _told() -> Iterator["Settings"]:
    """The settings in force. An error becomes a message and an exit code: 2 wrong settings, 3 no database or GitLab."""
    from bot.forge import ForgeError  # noqa: PLC0415 -- as every command: only when it is asked for
    from bot.settings import SettingsError, load  # noqa: PLC0415 -- the same
    from bot.store import StoreError  # noqa: PLC0415 -- the same

    try:
        yield load({})
    except SettingsError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    except (StoreError, ForgeError, forgetting.NotNowError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(3) from None


@app.command()
def serve(
    *,
    host: Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="TCP port to listen on.")] = 8080,
    role: Annotated[
        RoleChoice,
        typer.Option("--role", help="The part to run; web and worker apart need PostgreSQL."),
    ] = RoleChoice.all,
) -> None:
    """Run the bot: take GitLab's webhooks, review merge requests, count votes.

    It needs APPRENTICE_GITLAB_URL, APPRENTICE_GITLAB_TOKEN and APPRENTICE_WEBHOOK_SECRET, and finds the student as
    `apprentice review` does. It starts while GitLab or the student is down; GET /readyz says what is missing.
    SIGTERM stops it; what it had begun goes on at the next start.
    """
    from bot import serve as serving  # noqa: PLC0415 -- as every command: only when it is asked for

    with _told() as chosen:
        serving.run(chosen, host=host, port=port, role=role.value)


@app.command()
def migrate(
    *,
    to: Annotated[
        str, typer.Option("--to", metavar="REVISION", help="head (the newest), base (none), or a revision.")
    ] = "head",
) -> None:
    """Bring the database's tables to the version that this program needs (SQLite: `serve` does it by itself)."""
    from bot import parts  # noqa: PLC0415 -- as every command: only when it is asked for

    with _told() as chosen:
        store = parts.open_store(chosen)
        before = store.revision()
        store.migrate(to)
        typer.echo(f"{store.name}: from {before or 'no tables'} to {store.revision() or 'no tables'}")


@app.command()
def forget(
    *,
    project: Annotated[
        int | None, typer.Option("--project", metavar="ID", help="All that is kept of this project.")
    ] = None,
    user: Annotated[
        int | None, typer.Option("--user", metavar="ID", help="The votes of this GitLab user (their numeric id).")
    ] = None,
) -> None:
    """Remove what is kept of a project or a person, in the database and in what the student learns from.

    An adapter that has learnt from it serves on, marked: the next round makes one without. Exit codes: 0 done; 3 not
    now, and nothing was removed.
    """
    if (project is None) == (user is None):
        raise typer.BadParameter("name one of --project and --user")
    from bot import parts  # noqa: PLC0415 -- as every command: only when it is asked for
    from bot.feedback import pseudonym  # noqa: PLC0415 -- the same

    with _told() as chosen:
        store = parts.open_store(chosen)
        store.check()
        voter = None if user is None else pseudonym(user, parts.salt(chosen))
        counts: dict[str, int] = {}
        for also in forgetting.ALSO:
            counts |= also(chosen, store, forgetting.Whose(project, voter))
        if project is not None:
            counts |= store.forget_project(project)
        if voter is not None:
            counts |= store.forget_person(voter)
        for table, count in counts.items():
            typer.echo(f"{table:<16}{count:>8} {'' if table.endswith('marked') else 'removed'}".rstrip())


@app.command()
def connect(
    target: Annotated[
        str, typer.Argument(metavar="GROUP_OR_PROJECT", help="Its full path (team/tools/shop), number or page.")
    ],
    *,
    url: Annotated[
        str, typer.Option("--url", metavar="URL", help="Where GitLab reaches the bot, like https://bot.example.")
    ],
    verify: Annotated[
        bool,
        typer.Option("--verify-tls/--no-verify-tls", help="Whether GitLab verifies the bot's certificate."),
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
) -> None:
    """Let GitLab send a project's or a whole group's events to the bot.

    Makes the webhooks, or repairs those that are there: one of the group where GitLab has that (Premium, role Owner),
    else one for each of its projects (role Maintainer), those of subgroups too. The bot remembers them, so run it
    where `apprentice serve` runs, with the same settings: that one then connects new projects of a group by itself.
    It may be run again at any time.

    Exit codes: 0 done; 2 the settings or the command line are wrong; 3 GitLab or the database could not be used, or
    not for all projects (those that could be done are done).
    """
    from bot import connect as connecting  # noqa: PLC0415 -- as every command: only when it is asked for

    with _told() as chosen:
        raise typer.Exit(connecting.run(chosen, target=target, url=url, verify=verify, dry_run=dry_run))


@app.command()
def doctor(
    *,
    project: Annotated[
        str | None,
        typer.Option("--project", metavar="PATH", help="Look at this project, not at all that are connected."),
    ] = None,
) -> None:
    """Check what the bot needs, and say how to mend what is wrong. Changes nothing.

    Exit codes: 0 nothing failed; 1 a check failed; 2 the settings or the command line are wrong.
    """
    from bot import doctor as surgery  # noqa: PLC0415 -- as every command: only when it is asked for

    with _told() as chosen:
        raise typer.Exit(surgery.run(chosen, project=project))


@votes_app.command()
def export() -> None:
    """Write all votes as JSON lines on stdout; people stand there under a pseudonym."""
    from bot import parts  # noqa: PLC0415 -- as every command: only when it is asked for
    from bot.feedback import as_json_line  # noqa: PLC0415 -- the same

    with _told() as chosen:
        store = parts.open_store(chosen)
        store.check()
        for vote in store.votes():
            typer.echo(as_json_line(vote))


def main() -> None:
    """Run the command line (Ctrl-C ends it with 130, which typer sees to)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without UTF-8 still gets text
    app()
