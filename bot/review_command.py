"""`apprentice review`: from the command line's options to an exit code.

The one place where git, the settings, the policy, the student and the printed report come together.
"""

import asyncio
import contextlib
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from bot import git, report, settings, terminal
from bot.diff import DiffError
from bot.domain import Finding, Review, Severity, Usage
from bot.endpoint import StudentError
from bot.interview import find_endpoint, interview
from bot.policy import Policy, PolicyError, parse_policy
from bot.prompt import prompt_id
from bot.redact import RedactionError
from bot.review import Change, Outcome
from bot.tokens import TokenizerError

POLICY_FILE = ".apprentice.yml"
DONE, FAIL_ON_REACHED, WRONG_INPUT, INCOMPLETE = range(4)
"""The exit codes."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asked for; at most one of `rev_range`, `staged` and `patch` is set."""

    folder: Path
    rev_range: str | None = None
    staged: bool = False
    patch: str | None = None
    threshold: Severity | None = None
    output_format: Literal["text", "json", "markdown", "sarif", "codequality"] = "text"
    fail_on: Severity | None = None
    show_hidden: bool = False
    adapter: str | None = None

    @property
    def overrides(self) -> dict[str, object]:
        """The settings that the command line sets."""
        return {"student_adapter": self.adapter}


_WRONG_INPUT = (
    settings.SettingsError,
    git.GitError,
    DiffError,
    PolicyError,
    RedactionError,
    TokenizerError,
    OSError,
)


def run(options: Options) -> int:
    """Review and print; returns the exit code."""
    try:
        chosen = settings.load(options.overrides)
        change = _change(options)
        policy, _ = _policy(options, change)
        outcome = ask(change, policy, chosen)
    except StudentError as error:
        return complain(error, INCOMPLETE)
    except _WRONG_INPUT as error:
        return complain(error, WRONG_INPUT)
    if change.note:
        say(f"note: {change.note}")
    for failure in outcome.errors:
        say(f"error: {failure}")
    show(outcome.review, options)
    return exit_code(outcome, options.fail_on)


def explain(options: Options) -> int:
    """Print every setting and every wish of the policy with its value and where it came from."""
    try:
        rows = settings.explain(options.overrides)
    except settings.SettingsError as error:
        return complain(error, WRONG_INPUT)
    try:
        policy, origin = _policy(options, _change(options))
    except git.GitError as error:  # the settings are in force all the same
        say(f"note: no policy is read: {error}")
        policy, origin = Policy(), ""
    except _WRONG_INPUT as error:
        return complain(error, WRONG_INPUT)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("setting", "value", "from"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(row.name, terminal.printable(row.value), terminal.printable(row.origin))
    for name in Policy.model_fields:
        given = name in policy.model_fields_set
        override = name == "severity" and options.threshold is not None
        table.add_row(
            f"policy: {name}",
            terminal.printable(str(getattr(policy, name))),
            "command line" if override else origin if given else "default",
        )
    width = None if sys.stdout.isatty() else 300  # in a pipe nothing is cut
    Console(width=width, highlight=False, markup=False).print(table)
    return DONE


def _change(options: Options) -> git.LocalChange:
    if options.patch is not None:
        raw = sys.stdin.buffer.read() if options.patch == "-" else Path(options.patch).read_bytes()
        return git.patch_change(options.folder, raw)
    if options.staged:
        return git.staged_change(options.folder)
    if options.rev_range is not None:
        return git.range_change(options.folder, options.rev_range)
    return git.branch_change(options.folder)


def _policy(options: Options, change: git.LocalChange) -> tuple[Policy, str]:
    """Read the policy from where the change goes to, never from the change itself; says where that is."""
    text = git.read_at(options.folder, change.base, POLICY_FILE)
    if text is None and git.is_at(options.folder, change.base, POLICY_FILE):
        raise PolicyError([f"{POLICY_FILE}: it is too large or no UTF-8 text (PowerShell's `>` writes UTF-16)"])
    policy = parse_policy(text or "", name=POLICY_FILE).with_threshold(options.threshold)
    return policy, f"{POLICY_FILE} {f'at {change.base}' if change.base else 'in the working tree'}"


# --- what every review from the command line has, wherever its change comes from


def ask(change: Change, policy: Policy, chosen: settings.Settings) -> Outcome:
    """Put a change to the student that the settings name, and show how far it is; an empty one is put to nobody.

    Raises:
        StudentError: there is none, or no client for it can be made. What goes wrong later is in the outcome.
        RedactionError: the secret scanner cannot be loaded.
        TokenizerError: the tokenizer's file cannot be used.
    """
    if not change.files:
        return Outcome(Review((), (), (), chosen.student_model or "none", None, prompt_id(), Usage()), (), {})
    heard = asyncio.run(
        interview(
            change,
            policy,
            chosen,
            find_endpoint(chosen),
            lambda total: terminal.progress(enabled=True, total=total),
            adapter=chosen.student_adapter or _promoted(chosen),
        )
    )
    for warning in heard.warnings:
        say(f"warning: {warning}")
    return heard.outcome


def _promoted(chosen: settings.Settings) -> str | None:
    """The adapter that the bot reviews with, if its database can be seen from here; loaded where it is missing."""
    if chosen.database_url is None and not chosen.own_database.is_file():
        return None
    from bot.serving import put_back  # noqa: PLC0415 -- imported late: it takes a second, and most have no bot
    from bot.store import Store, StoreError  # noqa: PLC0415 -- the same

    try:
        with contextlib.closing(Store(chosen.database)) as store:
            serving = store.serving_adapter()
            for problem in put_back(chosen, store).problems:
                say(f"warning: {problem}")
    except StoreError as error:
        say(f"note: the base model reviews, because no adapter could be looked up: {error}")
        return None
    return serving.name if serving else None


def show(done: Review, options: Options) -> None:
    """Print a review on stdout, in the format that was asked for."""
    if options.output_format == "text":
        terminal.render(done, show_hidden=options.show_hidden, console=terminal.stdout_console())
        return
    formats: dict[str, Callable[[], str]] = {
        "json": lambda: report.as_json(done),
        "markdown": lambda: report.as_markdown(done, show_hidden=options.show_hidden),
        "sarif": lambda: report.as_sarif(done, show_hidden=options.show_hidden),
        "codequality": lambda: report.as_codequality(done),
    }
    sys.stdout.write(formats[options.output_format]())


def exit_code(outcome: Outcome, fail_on: Severity | None, *, earlier: Iterable[Finding] = ()) -> int:
    """What the command ends with; `earlier` are findings that stand already and count for `fail_on` as well."""
    if outcome.errors or not outcome.review.complete:
        return INCOMPLETE
    standing = (*outcome.review.shown, *earlier)
    if fail_on is not None and any(finding.severity >= fail_on for finding in standing):
        return FAIL_ON_REACHED
    return DONE


def complain(error: Exception, code: int) -> int:
    """Say what went wrong, and give back the exit code for it."""
    say(f"error: {error}")
    return code


def say(text: str) -> None:
    """Tell the person at the terminal; stdout is for the report."""
    print(terminal.printable_lines(text), file=sys.stderr)  # noqa: T201 -- a command line speaks on stderr
