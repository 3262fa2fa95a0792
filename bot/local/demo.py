"""`make demo`: a real model on this machine reviews a sample change.

Plays the commands a user would type, so that what scrolls by is also the lesson. The sample is a small repository
with a branch to merge: one planted defect each in Python, Go and JavaScript, and clean changes beside them.
"""

import os
import shutil
import subprocess
import sys
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import typer

from bot import settings
from bot.local.state import running

PLANTED = """\
Planted in the sample, for comparison:
  billing/invoices.py  a SQL injection (the customer's name is formatted into the query)
  gateway/track.go     a nil dereference (response.Body is used before err is checked)
  web/basket.js        an off-by-one (basket[basket.length] is always undefined)
Everything else in the change is fine. The demo's student is a small base model that has learnt nothing yet: it
finds some, misses some and invents some. Judging well is what the adapter is for."""

_GIT = ("git", "-c", "user.name=Demo", "-c", "user.email=demo@example.invalid", "-c", "commit.gpgsign=false")


def make_repository(folder: Path) -> None:
    """Make the sample repository, with its branch `invoices-by-customer` checked out; replaces an older one."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    sample = resources.files("bot.local") / "sample"
    _git(folder, "init", "--quiet", "--initial-branch=main")
    _copy(sample / "before", folder)
    _git(folder, "add", "--all")
    _git(folder, "commit", "--quiet", "--message", "Invoices, parcels and the basket")
    _git(folder, "switch", "--quiet", "--create", "invoices-by-customer")
    _copy(sample / "after", folder)
    _git(folder, "add", "--all")
    _git(folder, "commit", "--quiet", "--message", "Invoices of one customer, parcel tracking, last item")


def _copy(source: Traversable, target: Path) -> None:
    with resources.as_file(source) as folder:
        shutil.copytree(folder, target, dirs_exist_ok=True)


def _git(folder: Path, *arguments: str) -> None:
    subprocess.run((*_GIT, *arguments), cwd=folder, check=True)  # noqa: S603 -- arguments of our own making


def _play(folder: Path, *arguments: str) -> None:
    """Run an `apprentice` command as a user would, showing it first; end the demo where it fails."""
    typer.secho(f"\n$ apprentice {' '.join(arguments)}", bold=True)
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    done = subprocess.run(  # noqa: S603 -- our own command
        (sys.executable, "-m", "bot", *arguments), cwd=folder, env=environment, check=False
    )
    if done.returncode:
        typer.echo(f"\nThe demo stops here: that command ended with {done.returncode}.", err=True)
        sys.exit(done.returncode)


def _requests(state_dir: Path) -> int:
    """Chat requests that the student on this machine has answered, by vLLM's log."""
    here = running(state_dir)
    return here.log.read_text("utf-8", "replace").count('POST /v1/chat/completions HTTP/1.1" 200') if here else 0


def main() -> None:
    """Play the demo."""
    try:
        chosen = settings.load({})
    except settings.SettingsError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    folder = chosen.cache_dir / "demo"
    make_repository(folder)
    typer.echo(f"A sample repository with a branch to merge stands in {folder}")
    if chosen.student_url is None:
        _play(folder, "student", "start")
    before = _requests(chosen.state_dir)
    _play(folder, "review", "--show-hidden")
    if here := running(chosen.state_dir):
        answered = _requests(chosen.state_dir) - before
        typer.echo(f"\nvLLM's own access log counts {answered} answered requests: {here.log}")
    typer.echo(f"\n{PLANTED}")
    typer.echo(f"""
What now?
  cd {folder} && git diff main...HEAD         look at the change yourself
  cd YOUR/REPOSITORY && {Path(sys.executable).parent}/apprentice review
  apprentice review --help                    thresholds, formats, exit codes for CI
  apprentice student status                   the student runs on; `apprentice student stop` ends it""")


if __name__ == "__main__":
    main()
