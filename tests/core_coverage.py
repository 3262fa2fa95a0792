"""The gate of `make unit`: its tests reach every line and every branch of the pure core.

What the pure core is stands once, in the contract of that name in `pyproject.toml`.
"""

import sys
import tomllib
from pathlib import Path

from coverage import Coverage
from coverage.exceptions import NoDataError

CONTRACT = "the pure core does no I/O"


def core() -> list[str]:
    """The files of the pure core."""
    project = tomllib.loads(Path("pyproject.toml").read_text())
    contracts = project["tool"]["importlinter"]["contracts"]
    modules = next(one["source_modules"] for one in contracts if one["name"] == CONTRACT)
    return [module.replace(".", "/") + ending for module in modules for ending in (".py", "/*")]


def main() -> int:
    """Print what is not reached; the exit code."""
    measured = Coverage()
    measured.load()
    try:
        reached = measured.report(include=core(), show_missing=True, skip_covered=True)
    except NoDataError:
        reached = 0.0
    if reached < 100:
        sys.stderr.write(
            f"The tests reach {reached:.2f} % of the pure core, not 100 %: the lines and branches above are missing.\n"
            "Hypothesis tests do not count: what they reach differs from run to run (see tests/conftest.py).\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
