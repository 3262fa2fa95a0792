"""What the operator wants: where the student is, its key, limits, folders; and where each value came from.

From the highest rank to the lowest: the command line; `APPRENTICE_*` in the environment, or the file that
`APPRENTICE_*_FILE` names (for mounted secrets); the YAML file that `APPRENTICE_CONFIG` names; the default.
Nothing is read from the working directory, no `.env` either: it may be a stranger's repository. For the same
reason a path must be absolute, unless it is a `Path` from the command line.

What a repository wants stands elsewhere, in `bot.policy`.
"""

import difflib
import os
import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

import platformdirs
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError

PREFIX = "APPRENTICE_"
CONFIG = f"{PREFIX}CONFIG"
COMMAND_LINE = "command line"
OTHERS = ("teacher_", "train_")
"""How the settings begin that are the trainer's alone: one file or environment serves both."""

# Kubernetes puts such variables into every pod of a namespace that has a service called "apprentice…".
_SERVICE_LINK = re.compile(
    r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)=|_PORT=(tcp|udp|sctp)://"
)


class SettingsError(ValueError):
    """Settings that cannot be used. `problems` holds them all, one line each, with no secret in them."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def check_address(url: str, *, instead: str, example: str) -> str:
    """An http address without anything that could be a secret; `instead` says where that belongs."""
    if "@" in url:
        raise ValueError(f"must hold no user name and no password: {instead}")
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"is no address ({error})") from None
    if parts.scheme not in {"http", "https"} or not host or not url.isprintable() or " " in url:
        raise ValueError(f"must begin with http:// or https:// and name a host, like {example}")
    if "?" in url or "#" in url:
        raise ValueError("must hold no ? and no # part")
    return url.rstrip("/")


def _check_student_url(url: str) -> str:
    url = check_address(url, instead=f"the key belongs in {PREFIX}STUDENT_API_KEY", example="http://127.0.0.1:8000/v1")
    if not url.endswith("/v1"):
        raise ValueError(f"must end in /v1: write {url}/v1")
    return url


def _check_student_urls(urls: str) -> str:
    return ",".join(_check_student_url(url.strip()) for url in urls.split(","))


def _check_gitlab_url(url: str) -> str:
    return check_address(url, instead=f"the token belongs in {PREFIX}GITLAB_TOKEN", example="https://gitlab.example")


def _check_key(key: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[!-~]+", key.get_secret_value()):
        raise ValueError("must be one word of plain ASCII characters (the value is not shown)")
    return key


def _check_absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError(f"must be an absolute path, not {str(path)!r}")
    return path


def _check_is_file(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"names {path}, which is not a file")
    return path


def _check_tokenizer(path: Path) -> Path:
    return _check_is_file(path / "tokenizer.json" if path.is_dir() else path)


_Name = Annotated[str, Field(pattern=r"^\S([^\x00-\x1f\x7f]*\S)?$")]
_AbsolutePath = Annotated[Path, AfterValidator(_check_absolute)]
_Secret = Annotated[SecretStr, AfterValidator(_check_key)]
_CaFile = Annotated[_AbsolutePath, AfterValidator(_check_is_file)]


class Settings(BaseModel):
    """The settings in force. Made by `load`; a field's description says what is allowed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    student_url: Annotated[str, AfterValidator(_check_student_url)] | None = Field(
        default=None, description="address of an OpenAI-compatible endpoint that ends in /v1"
    )
    student_model: _Name | None = Field(
        default=None,
        description="the base model's name at the endpoint; without it, the only one served",
    )
    student_adapter: _Name | None = Field(
        default=None,
        description="name of the LoRA adapter that answers; without it, the one that the learning loop promoted, or "
        "the base model",
    )
    student_replicas: Annotated[str, AfterValidator(_check_student_urls)] | None = Field(
        default=None,
        description="addresses of all vLLM servers behind the student's address, commas between, each ends in /v1; "
        "without it, that address alone",
    )
    student_adapters_dir: _AbsolutePath | None = Field(
        default=None,
        description="folder of the learning loop's adapters as the student's machine sees it; without it, "
        "trainer/adapters in the data folder",
    )
    student_api_key: _Secret | None = Field(default=None, description="the endpoint's key, text")
    student_ca_file: _CaFile | None = Field(
        default=None, description="file with the certificates (PEM) to trust instead of the system's"
    )
    student_timeout_seconds: float | None = Field(
        default=None,
        gt=0,
        le=3600,
        description="seconds to wait for one answer, more than 0 and at most 3600; without it 120, and 900 for the "
        "student on this machine",
    )
    student_concurrency: int = Field(
        default=8, ge=1, le=256, description="requests in flight at once, a whole number from 1 to 256"
    )
    student_retries: int = Field(
        default=2,
        ge=0,
        le=10,
        description="tries more after a lost connection, a 429 or a 5xx, a whole number from 0 to 10",
    )
    student_tokenizer: Annotated[_AbsolutePath, AfterValidator(_check_tokenizer)] | None = Field(
        default=None, description="the base model's tokenizer.json, or the folder that holds it"
    )
    student_context_tokens: int | None = Field(
        default=None,
        ge=512,
        le=10_000_000,
        description="context length, a whole number from 512 to 10000000; without it, the endpoint's",
    )
    max_requests: int = Field(
        default=200,
        ge=1,
        le=10_000,
        description="requests that one review may make, a whole number from 1 to 10000",
    )
    gitlab_url: Annotated[str, AfterValidator(_check_gitlab_url)] | None = Field(
        default=None, description="address of the GitLab server, with its path if it has one"
    )
    gitlab_token: _Secret | None = Field(
        default=None, description="access token of the bot's user, scope api, role Developer or more, text"
    )
    gitlab_ca_file: _CaFile | None = Field(
        default=None, description="file with the certificates (PEM) to trust instead of the system's"
    )
    webhook_secret: _Secret | None = Field(
        default=None, description="what GitLab sends as X-Gitlab-Token with each delivery, text"
    )
    webhook_signing_key: _Secret | None = Field(
        default=None, description="what GitLab 19.0 and later signs deliveries with, text that begins with whsec_"
    )
    database_url: SecretStr | None = Field(
        default=None,
        description="postgresql://USER:PASSWORD@HOST/NAME or sqlite:////PATH; without it SQLite in the data folder",
    )
    debounce_seconds: float = Field(
        default=20,
        ge=0,
        le=3600,
        description="seconds to wait after a push for the next one, from 0 to 3600",
    )
    reviews_at_once: int = Field(
        default=4, ge=1, le=64, description="reviews that run at once, a whole number from 1 to 64"
    )
    reviews_per_project: int = Field(
        default=2, ge=1, le=64, description="reviews of one project that run at once, a whole number from 1 to 64"
    )
    vote_salt: _Secret | None = Field(
        default=None,
        description="secret behind the pseudonyms of voters, text; without it one is made in the data folder",
    )
    retention_days: int = Field(
        default=365,
        ge=1,
        le=36_500,
        description="days that deliveries and reviews are kept, a whole number from 1 to 36500",
    )
    worker_name: _Name = Field(
        default_factory=socket.gethostname,
        description="name of this worker; stays the same over a restart, and no two have the same",
    )
    data_dir: _AbsolutePath = Field(
        default_factory=lambda: platformdirs.user_data_path("apprentice"),
        description="folder for the database of a bot without PostgreSQL",
    )
    cache_dir: _AbsolutePath = Field(
        default_factory=lambda: platformdirs.user_cache_path("apprentice"),
        description="folder for models and caches",
    )
    state_dir: _AbsolutePath = Field(
        default_factory=lambda: platformdirs.user_state_path("apprentice"),
        description="folder for pid files and logs",
    )

    @property
    def own_database(self) -> Path:
        """SQLite's file, where no other database is named."""
        return self.data_dir / "apprentice.sqlite"

    @property
    def database(self) -> str:
        """The database's URL."""
        return self.database_url.get_secret_value() if self.database_url else f"sqlite:///{self.own_database}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of `--explain-config`: a setting, its value as text (secrets masked), where it came from."""

    name: str
    value: str
    origin: str


@dataclass(frozen=True, slots=True)
class _Found:
    value: object
    origin: str


SECRETS = frozenset(
    {"student_api_key", "gitlab_token", "webhook_secret", "webhook_signing_key", "database_url", "vote_salt"}
)
"""The settings whose value is never shown."""


_Kind = TypeVar("_Kind", bound=Settings)


def load(overrides: Mapping[str, object]) -> Settings:
    """The settings in force; `overrides` are the command line's (None: not given).

    Raises:
        SettingsError: with every problem of every source.
    """
    return load_as(Settings, overrides)


def load_as(kind: type[_Kind], overrides: Mapping[str, object]) -> _Kind:
    """The same with the settings that `kind` has besides, and that are passed over here.

    Raises:
        SettingsError: as `load`.
    """
    return _load(kind, overrides)[0]


def explain(overrides: Mapping[str, object]) -> tuple[Row, ...]:
    """Every setting with its value and its origin, in the order of `Settings`.

    Raises:
        SettingsError: as `load`.
    """
    settings, found = _load(Settings, overrides)
    return tuple(
        Row(name, _shown(getattr(settings, name)), found[name].origin if name in found else "default")
        for name in Settings.model_fields
    )


def _shown(value: object) -> str:
    if value is None:
        return "not set"
    return str(value)  # a SecretStr masks itself


def _load(kind: type[_Kind], overrides: Mapping[str, object]) -> tuple[_Kind, dict[str, _Found]]:
    problems: list[str] = []
    passed_over = () if any(name.startswith(OTHERS) for name in kind.model_fields) else OTHERS
    config = {name: one for name, one in _from_config(problems).items() if not name.startswith(passed_over)}
    found = {
        **config,
        **_from_environment(kind, passed_over, problems),
        **{
            name: _Found(value.absolute() if isinstance(value, Path) else value, COMMAND_LINE)
            for name, value in overrides.items()
            if value is not None
        },
    }
    try:
        settings = kind.model_validate({name: one.value for name, one in found.items()})
    except ValidationError as error:
        problems += _explained(kind, error, found)
    if problems:
        raise SettingsError(problems)
    return settings, found


def _explained(kind: type[Settings], error: ValidationError, found: Mapping[str, _Found]) -> list[str]:
    lines = []
    for problem in error.errors(include_url=False, include_input=False):
        if not problem["loc"]:  # it is about several of them, and names them
            lines.append(str(problem["ctx"]["error"]))
            continue
        name = str(problem["loc"][0])
        one, field = found[name], kind.model_fields.get(name)
        if field is None:
            text = f"is not a setting{_nearest(name, kind.model_fields)}"
        elif problem["type"] == "value_error":
            text = str(problem["ctx"]["error"])
        else:
            shown = "" if "SecretStr" in str(field.annotation) else f", not {str(one.value)[:60]!r}"
            text = f"must be {field.description}{shown}"
        lines.append(f"{name} ({one.origin}): {text}")
    return lines


def _nearest(word: str, words: Iterable[str], prefix: str = "") -> str:
    near = difflib.get_close_matches(word.removeprefix(prefix), words, n=1)
    if near:
        return f"; did you mean {prefix}{near[0]}?"
    return f"; known are {', '.join(prefix + one for one in words)}"


def _from_environment(kind: type[Settings], passed_over: tuple[str, ...], problems: list[str]) -> dict[str, _Found]:
    known = {f"{PREFIX}{name.upper()}": name for name in kind.model_fields}
    others = tuple(f"{PREFIX}{name.upper()}" for name in passed_over)
    names = [variable.removeprefix(PREFIX) for variable in (*known, CONFIG)]
    files = {f"{variable}_FILE": variable for variable in known}
    given = {variable: value for variable, value in os.environ.items() if variable.startswith(PREFIX) and value}
    found: dict[str, _Found] = {}
    for variable, value in given.items():
        if variable in known:
            found[known[variable]] = _Found(value, f"environment variable {variable}")
        elif variable in files:
            if files[variable] in given:
                problems.append(f"{variable} and {files[variable]} are both set: keep one of them")
            elif (text := _read(variable, problems)) is not None:
                found[known[files[variable]]] = _Found(text, f"file {value} via {variable}")
        elif variable.startswith(others):
            continue
        elif variable != CONFIG and not _SERVICE_LINK.search(f"{variable}={value}"):
            problems.append(f"{variable} is not a setting{_nearest(variable, names, PREFIX)}")
    return found


def _read(variable: str, problems: list[str]) -> str | None:
    """The text of the file that a variable names, without its last line ending; None: that was a problem."""
    try:
        text = _check_absolute(Path(os.environ[variable])).read_text("utf-8").rstrip("\r\n")
    except OSError as error:
        problems.append(f"{variable} names {os.environ[variable]}, which cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        problems.append(f"{variable} names {os.environ[variable]}, which is not UTF-8 text")
    except ValueError as error:
        problems.append(f"{variable} {error}")
    else:
        if text:
            return text
        problems.append(f"{variable} names {os.environ[variable]}, which is empty")
    return None


def _from_config(problems: list[str]) -> dict[str, _Found]:
    """The settings of the operator's YAML file: a flat mapping of names to plain values."""
    if not os.environ.get(CONFIG) or (text := _read(CONFIG, problems)) is None:
        return {}
    import yaml  # noqa: PLC0415 -- imported late: most runs have no such file

    path = os.environ[CONFIG]
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        # `problem` and not the whole error: that one quotes the line, and a secret may stand in it.
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else path
        problems.append(f"{place}: is no valid YAML: {getattr(error, 'problem', 'a character is not allowed')}")
        return {}
    if node is None:  # nothing but comments
        return {}
    if not isinstance(node, yaml.MappingNode):
        problems.append(f"{path}: must hold lines of the form `name: value`")
        return {}
    found: dict[str, _Found] = {}
    for key, value in node.value:
        where = f"config {path}:{key.start_mark.line + 1}"
        if not (isinstance(key, yaml.ScalarNode) and isinstance(value, yaml.ScalarNode)):
            problems.append(f"{where}: must be of the form `name: value`, with a plain value")
        elif key.value in found:
            problems.append(f"{key.value} ({where}): stands twice in the file")
        elif value.tag != "tag:yaml.org,2002:null":  # `name:` with nothing behind it is not set
            found[key.value] = _Found(value.value, where)  # as text, like a variable's: 0123 stays 0123
    return found
