"""Reviewers to measure: the bot of this repository, and two others that the Python registry has.

Each of the others runs its own webhook server, unchanged, in an environment of its own in the cache folder, outside
the clone. How it is set up stands in its `note`: a figure is worth nothing when nobody knows what was measured.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

INSTALL_SECONDS = 900
NEWER_PYTHONS = ("python3.12", "python3.13", "python3.14")
SECRET = "the-benchs-webhook-secret"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a reviewer must be told.

    Args:
        gitlab: address of the stand-in (https); `ca_file`: whom to trust for it; `token`: the reviewer's.
        student: an OpenAI-compatible endpoint that ends in /v1.
        folder: an empty one, for what it keeps.
        port: where it shall listen.
    """

    gitlab: str
    ca_file: Path
    token: str
    student: str
    folder: Path
    port: int


@dataclass(frozen=True, slots=True)
class Reviewer:
    """How to run one.

    Args:
        name: with its version.
        note: what a reader of its figures should know.
        ready: a path that answers with 200 once it listens; webhooks go to /webhook for all of them.
        command, environment: to start it with.
    """

    name: str
    note: str
    ready: str
    command: Callable[[Surroundings], list[str]]
    environment: Callable[[Surroundings], Mapping[str, str]]


def ours() -> Reviewer:
    """`apprentice serve` on SQLite."""
    return Reviewer(
        "apprentice",
        "",
        "/healthz",
        lambda here: [sys.executable, "-m", "bot", "serve", "--port", str(here.port)],
        lambda here: {
            "APPRENTICE_GITLAB_URL": here.gitlab,
            "APPRENTICE_GITLAB_TOKEN": here.token,
            "APPRENTICE_GITLAB_CA_FILE": str(here.ca_file),
            "APPRENTICE_WEBHOOK_SECRET": SECRET,
            "APPRENTICE_STUDENT_URL": here.student,
            "APPRENTICE_DATA_DIR": str(here.folder / "data"),
            "APPRENTICE_STATE_DIR": str(here.folder / "state"),
            "APPRENTICE_DEBOUNCE_SECONDS": "0",
        },
    )


# --- the others


class UnavailableError(RuntimeError):
    """Why a reviewer cannot be measured here."""


PR_AGENT, PRXREF = "pr-agent[gitlab]==0.49.0", "prxref==0.39.0"


def pr_agent(cache: Path) -> Reviewer:
    """PR-Agent's own webhook server for GitLab, with its `/review` command and inline comments.

    Raises:
        UnavailableError: it cannot be installed.
    """
    python = _environment(cache / "pr-agent", PR_AGENT)
    (tokenizers,) = python.parents[1].glob("lib/python*/site-packages/litellm/litellm_core_utils/tokenizers")
    settings = {
        # both are fetched from the internet otherwise, and there may be none; its own dependency brings them along
        "TIKTOKEN_CACHE_DIR": str(tokenizers),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "CONFIG__MODEL": "openai/base",
        "CONFIG__FALLBACK_MODELS": "[]",
        "CONFIG__CUSTOM_MODEL_MAX_TOKENS": "32000",
        "CONFIG__LOG_LEVEL": "WARNING",
        "OPENAI__KEY": "none",
        "GITLAB__AUTH_TYPE": "private_token",
        "GITLAB__SHARED_SECRET": SECRET,
        "GITLAB__PR_COMMANDS": '["/review"]',
        "PR_REVIEWER__INLINE_KEY_ISSUES": "true",
    }
    return Reviewer(
        PR_AGENT.replace("[gitlab]==", " "),
        "only /review (by default it runs /describe and /improve too), with inline_key_issues on; "
        "what it has acknowledged is in memory only",
        "/",
        lambda here: [
            *(str(python), "-m", "uvicorn", "pr_agent.servers.gitlab_webhook:app"),
            *("--host", "127.0.0.1", "--port", str(here.port), "--log-level", "warning"),
        ],
        lambda here: (
            settings
            | {
                "GITLAB__URL": here.gitlab,
                "GITLAB__PERSONAL_ACCESS_TOKEN": here.token,
                "OPENAI__API_BASE": here.student,
                "REQUESTS_CA_BUNDLE": str(here.ca_file),
            }
        ),
    )


def prxref(cache: Path) -> Reviewer:
    """prxref's webhook daemon.

    Raises:
        UnavailableError: it cannot be installed.
    """
    python = _environment(cache / "prxref", PRXREF)
    settings = {
        "PRXREF_GITLAB_WEBHOOK_SECRET": SECRET,
        "PRXREF_LLM_BACKEND": "openai-compat",
        "PRXREF_LLM_MODELS": "base",
    }
    return Reviewer(
        PRXREF.replace("==", " "),
        "as it comes; what it has acknowledged is in memory only",
        "/health",
        lambda here: [
            *(str(python.parent / "prxref"), "serve", "--host", "127.0.0.1", "--port", str(here.port)),
        ],
        lambda here: (
            settings
            | {
                "PRXREF_GITLAB_TOKEN": here.token,
                "PRXREF_LLM_BASE_URL": here.student,
                "REQUESTS_CA_BUNDLE": str(here.ca_file),
            }
        ),
    )


def _environment(folder: Path, requirement: str) -> Path:
    """An environment with a package, made when it is not there; gives its interpreter.

    Raises:
        UnavailableError: it cannot be installed.
    """
    python, done = folder / "bin" / "python", folder / "complete"
    if not (done.is_file() and done.read_text() == requirement):
        shutil.rmtree(folder, ignore_errors=True)
        _run([_newer_python(), "-m", "venv", str(folder)])
        _run([str(python), "-m", "pip", "install", "--quiet", requirement])
        done.write_text(requirement)
    return python


def _newer_python() -> str:
    """A Python 3.12 or later on this machine: both want one.

    Raises:
        UnavailableError: there is none.
    """
    named = [path for name in ("python3.12", "python3.13", "python3.14") if (path := shutil.which(name))]
    kept = [str(path) for path in sorted((Path.home() / ".pyenv" / "versions").glob("3.1[2-9].*/bin/python3"))]
    for python in (*named, *kept):
        if not subprocess.run([python, "-c", "import venv"], capture_output=True, check=False).returncode:
            return python  # not each is one: pyenv puts a script of that name on PATH
    raise UnavailableError("it needs Python 3.12 or later, and there is none on this machine")


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"{command[-1]} was not installed within {INSTALL_SECONDS} s") from None
    if done.returncode:
        last = (done.stderr.strip() or "no reason given").splitlines()[-1]
        raise UnavailableError(f"{command[-1]} cannot be installed: {last}")


def clean_environment() -> dict[str, str]:
    """This process's environment without settings of the bot."""
    return {name: value for name, value in os.environ.items() if not name.startswith("APPRENTICE_")}
