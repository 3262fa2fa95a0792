"""The sample repository of `make demo`: a branch to merge, with one planted defect each in Python, Go and JavaScript.

`python -m tests.demo` plays with it.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

BRANCH = "invoices-by-customer"
TITLE = "Invoices of one customer, parcel tracking, last item"


@dataclass(frozen=True, slots=True)
class Planted:
    """A planted defect: its file, the line's code without blanks around it, and what is wrong."""

    file: str
    code: str
    words: str


PLANTED = (
    Planted("web/basket.js", "return basket[basket.length];", "an off-by-one: the last item is at length - 1"),
    Planted(
        "billing/invoices.py",
        "rows = db.execute(f\"SELECT number, customer, cents FROM invoices WHERE customer = '{customer}'\")",
        "a SQL injection: the customer's name is formatted into the query",
    ),
    Planted(
        "gateway/track.go", "defer response.Body.Close()", "a nil dereference: response is used before err is checked"
    ),
)
"""Everything else in the change is fine."""


def make_repository(folder: Path, author: str, email: str) -> None:
    """Make the sample repository, with `BRANCH` checked out; replaces an older one."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "config", "user.name", author)
    git(folder, "config", "user.email", email)
    _copy(_sample() / "before", folder)
    _commit(folder, "Invoices, parcels and the basket")
    git(folder, "switch", "--quiet", "--create", BRANCH)
    _copy(_sample() / "after", folder)
    _commit(folder, TITLE)


def mend(folder: Path, defect: Planted) -> None:
    """Correct a planted defect in the working tree, and stage that."""
    with resources.as_file(_sample() / "fixed" / defect.file) as corrected:
        shutil.copyfile(corrected, folder / defect.file)
    git(folder, "add", "--all")


def git(folder: Path, *arguments: str) -> None:
    """Run git without the user's own configuration, which may sign, hook or ask.

    Raises:
        FileNotFoundError: there is no git.
        subprocess.CalledProcessError: it refused, and said why on stderr.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    command = ("git", *arguments)  # from PATH, as a person has it
    subprocess.run(command, cwd=folder, env=environment, check=True)  # noqa: S603 -- arguments of our own making


def _commit(folder: Path, message: str) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)


def _sample() -> Traversable:
    return resources.files("bot.local") / "sample"


def _copy(source: Traversable, target: Path) -> None:
    with resources.as_file(source) as folder:
        shutil.copytree(folder, target, dirs_exist_ok=True)
