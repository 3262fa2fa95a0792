import os
import subprocess
import sys
from pathlib import Path

import pytest

from bot import settings
from bot.settings import Row, Settings, SettingsError

KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(settings.PREFIX):
            monkeypatch.delenv(name)


def given(monkeypatch: pytest.MonkeyPatch, **variables: object) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"APPRENTICE_{name}", str(value))


def configured(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> Path:
    path = folder / "apprentice.yaml"
    path.write_text(text, "utf-8")
    given(monkeypatch, CONFIG=path)
    return path


def problems(overrides: dict[str, object] | None = None) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        settings.load(overrides or {})
    assert KEY not in str(caught.value)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def origins() -> dict[str, str]:
    return {row.name: row.origin for row in settings.explain({})}


# Where values come from


def test_without_anything_the_defaults_are_in_force() -> None:
    found = settings.load({})
    assert found == Settings()
    assert found.student_url is None
    assert (found.student_timeout_seconds, found.student_concurrency, found.max_requests) == (None, 8, 200)
    assert found.cache_dir.name == found.state_dir.name == "apprentice"
    assert set(origins().values()) == {"default"}


def test_the_order_is_command_line_environment_config_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = configured(monkeypatch, tmp_path, "# ours\nstudent_retries: 3\nmax_requests: 30\nstudent_concurrency: 4\n")
    given(monkeypatch, MAX_REQUESTS=31, STUDENT_CONCURRENCY=5)
    overrides = {"student_concurrency": 6, "student_model": None}
    found = settings.load(overrides)
    assert (found.student_retries, found.max_requests, found.student_concurrency) == (3, 31, 6)
    rows = {row.name: row for row in settings.explain(overrides)}
    assert rows["student_retries"] == Row("student_retries", "3", f"config {path}:2")
    assert rows["max_requests"] == Row("max_requests", "31", "environment variable APPRENTICE_MAX_REQUESTS")
    assert rows["student_concurrency"] == Row("student_concurrency", "6", "command line")
    assert rows["student_model"] == Row("student_model", "not set", "default")
    assert list(rows) == list(Settings.model_fields)


def test_a_value_comes_from_a_file_without_its_line_ending(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(KEY.encode() + b"\r\n")
    (tmp_path / "model").write_text("base\n")
    given(monkeypatch, STUDENT_API_KEY_FILE=tmp_path / "key", STUDENT_MODEL_FILE=tmp_path / "model")
    found = settings.load({})
    assert found.student_api_key is not None
    assert found.student_api_key.get_secret_value() == KEY
    assert found.student_model == "base"
    assert origins()["student_api_key"] == f"file {tmp_path / 'key'} via APPRENTICE_STUDENT_API_KEY_FILE"


def test_a_secret_is_masked_wherever_the_settings_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, STUDENT_API_KEY=KEY)
    assert KEY not in repr(settings.load({})) + str(settings.explain({}))
    assert Row("student_api_key", "**********", "environment variable APPRENTICE_STUDENT_API_KEY") in settings.explain(
        {}
    )


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    given(monkeypatch, STUDENT_URL="", STUDENT_API_KEY="", STUDENT_API_KEY_FILE=tmp_path / "key", CONFIG="")
    assert settings.load({}).student_url is None


def test_no_file_of_the_working_directory_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (".env", ".env.local", "apprentice.yaml", "apprentice.yml", ".apprentice.yml"):
        (tmp_path / name).write_text("APPRENTICE_STUDENT_MODEL=evil\nstudent_model: evil\n")
    monkeypatch.chdir(tmp_path)
    assert settings.load({}) == Settings()


def test_all_good_values_are_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "ca.pem").write_text("x")
    given(
        monkeypatch,
        STUDENT_URL="https://gpu.corp:8443/llm/v1/",
        STUDENT_ADAPTER="apprentice-0007",
        STUDENT_REPLICAS="http://a:8000/v1/, http://b:8000/v1",
        STUDENT_ADAPTERS_DIR="/mnt/adapters",
        STUDENT_CA_FILE=tmp_path / "ca.pem",
        STUDENT_TIMEOUT_SECONDS="0.5",
        STUDENT_TOKENIZER=tmp_path,
        STUDENT_CONTEXT_TOKENS="4096",
        CACHE_DIR=tmp_path / "not there yet",
    )
    found = settings.load({})
    assert found.student_url == "https://gpu.corp:8443/llm/v1"
    assert found.student_replicas == "http://a:8000/v1,http://b:8000/v1"
    assert found.student_adapters_dir == Path("/mnt/adapters")
    assert found.student_tokenizer == tmp_path / "tokenizer.json"
    assert found.student_ca_file == tmp_path / "ca.pem"
    assert (found.student_timeout_seconds, found.student_context_tokens) == (0.5, 4096)


# What is wrong, and how it is said


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("STUDENT_URL", "http://h:8000", "must end in /v1: write http://h:8000/v1"),
        ("STUDENT_URL", "http://h:8000/", "must end in /v1: write http://h:8000/v1"),
        ("STUDENT_URL", "http://h/v1/chat/completions", "must end in /v1"),
        ("STUDENT_URL", "h:8000/v1", "must begin with http:// or https://"),
        ("STUDENT_URL", "ftp://h/v1", "must begin with http:// or https://"),
        ("STUDENT_URL", "http:///v1", "must begin with http:// or https:// and name a host"),
        ("STUDENT_URL", "http://h h/v1", "must begin with http:// or https:// and name a host"),
        ("STUDENT_URL", "http://h:99999/v1", "is no address"),
        ("STUDENT_URL", "http://[::1/v1", "is no address"),
        ("STUDENT_URL", f"http://me:{KEY}@h/v1", "the key belongs in APPRENTICE_STUDENT_API_KEY"),
        ("STUDENT_URL", "http://h/v1?x=1", "must hold no ? and no #"),
        ("STUDENT_REPLICAS", "http://h:8000/v1,http://i", "must end in /v1: write http://i/v1"),
        ("STUDENT_ADAPTERS_DIR", "adapters", "must be an absolute path, not 'adapters'"),
        ("STUDENT_MODEL", "a\x1b[31m", "must be the base model's name"),
        ("STUDENT_API_KEY", f"{KEY} {KEY}", "must be one word of plain ASCII characters"),
        ("STUDENT_API_KEY", f"{KEY}é", "must be one word of plain ASCII characters"),
        ("STUDENT_CA_FILE", "ca.pem", "must be an absolute path, not 'ca.pem'"),
        ("STUDENT_CA_FILE", "/nowhere/ca.pem", "names /nowhere/ca.pem, which is not a file"),
        ("STUDENT_CA_FILE", "/", "names /, which is not a file"),
        ("STUDENT_TOKENIZER", "/nowhere", "names /nowhere, which is not a file"),
        ("STUDENT_TOKENIZER", "/proc", "names /proc/tokenizer.json, which is not a file"),
        ("STUDENT_TIMEOUT_SECONDS", "0", "for the student on this machine, not '0'"),
        ("STUDENT_TIMEOUT_SECONDS", "nan", "for the student on this machine, not 'nan'"),
        ("STUDENT_CONCURRENCY", "many", "a whole number from 1 to 256, not 'many'"),
        ("STUDENT_CONCURRENCY", "0", "a whole number from 1 to 256, not '0'"),
        ("STUDENT_RETRIES", "-1", "a whole number from 0 to 10, not '-1'"),
        ("STUDENT_CONTEXT_TOKENS", "4k", "a whole number from 512"),
        ("MAX_REQUESTS", "1.5", "a whole number from 1 to 10000, not '1.5'"),
        ("CACHE_DIR", "~/x", "must be an absolute path, not '~/x'"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str
) -> None:
    given(monkeypatch, **{variable: value})
    (said,) = problems()
    assert said.startswith(f"{variable.lower()} (environment variable APPRENTICE_{variable}): ")
    assert words in said
    assert said.isprintable()


def test_all_problems_are_told_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = configured(monkeypatch, tmp_path, "student_retries: lots\nstudent_modl: x\n")
    given(monkeypatch, STUDENT_URL="nowhere", STUDENT_CONCURENCY=3, MAX_REQUESTS_FILE="/nowhere")
    said = problems({"student_timeout_seconds": -1})
    assert len(said) == 6
    assert any(f"student_retries (config {path}:1): must be tries" in one for one in said)
    assert any("student_url (environment variable APPRENTICE_STUDENT_URL): must begin" in one for one in said)
    assert any("APPRENTICE_STUDENT_CONCURENCY is not a setting" in one for one in said)
    assert any(f"student_modl (config {path}:2): is not a setting; did you mean student_model?" in one for one in said)
    assert any("student_timeout_seconds (command line): must be seconds" in one for one in said)
    assert any("APPRENTICE_MAX_REQUESTS_FILE names /nowhere, which cannot be read: No such file" in one for one in said)


@pytest.mark.parametrize(
    ("variable", "near"),
    [
        ("APPRENTICE_STUDENT_MODLE", "did you mean APPRENTICE_STUDENT_MODEL?"),
        ("APPRENTICE_CONFG", "did you mean APPRENTICE_CONFIG?"),
        ("APPRENTICE_CONFIG_FILE", "did you mean APPRENTICE_CONFIG?"),
        ("APPRENTICE_QQQ", "known are APPRENTICE_STUDENT_URL, "),
    ],
)
def test_an_unknown_variable_is_an_error_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, near: str
) -> None:
    monkeypatch.setenv(variable, "1")
    (said,) = problems()
    assert said.startswith(f"{variable} is not a setting")
    assert near in said


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("APPRENTICE_SERVICE_HOST", "10.0.0.1"),
        ("APPRENTICE_BOT_SERVICE_PORT", "8000"),
        ("APPRENTICE_BOT_SERVICE_PORT_HTTP", "8000"),
        ("APPRENTICE_BOT_PORT", "tcp://10.0.0.1:8000"),
        ("APPRENTICE_PORT_8000_TCP", "tcp://10.0.0.1:8000"),
        ("APPRENTICE_PORT_8000_TCP_ADDR", "10.0.0.1"),
    ],
)
def test_what_kubernetes_sets_for_a_service_is_no_setting(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert settings.load({}) == Settings()


def test_a_port_of_ones_own_is_an_unknown_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, STUDENT_PORT=8000)
    assert "APPRENTICE_STUDENT_PORT is not a setting" in problems()[0]


def test_a_value_and_its_file_are_one_too_many(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    given(monkeypatch, STUDENT_API_KEY=KEY, STUDENT_API_KEY_FILE=tmp_path / "key")
    assert problems() == (
        "APPRENTICE_STUDENT_API_KEY_FILE and APPRENTICE_STUDENT_API_KEY are both set: keep one of them",
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "is empty"), (b"\n", "is empty"), (b"\xff\xfe", "is not UTF-8 text")],
)
def test_a_secret_file_without_a_secret_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes, words: str
) -> None:
    (tmp_path / "key").write_bytes(content)
    given(monkeypatch, STUDENT_API_KEY_FILE=tmp_path / "key")
    assert problems() == (f"APPRENTICE_STUDENT_API_KEY_FILE names {tmp_path / 'key'}, which {words}",)


@pytest.mark.parametrize("variable", ["APPRENTICE_CONFIG", "APPRENTICE_STUDENT_API_KEY_FILE"])
def test_a_file_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str) -> None:
    monkeypatch.setenv(variable, str(tmp_path))
    assert problems() == (f"{variable} names {tmp_path}, which cannot be read: Is a directory",)
    monkeypatch.setenv(variable, "some/where")
    assert problems() == (f"{variable} must be an absolute path, not 'some/where'",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a\n- b\n", ": must hold lines of the form `name: value`"),
        ("student_model: [a, b]\n", ":1: must be of the form `name: value`, with a plain value"),
        ("student_model: a\nstudent_model: b\n", ":2): stands twice in the file"),
        (f"student_api_key:\t{KEY}\n  x: y\n", ": is no valid YAML: "),
        (f"student_model: a\n\tstudent_api_key: {KEY}\n", ":2: is no valid YAML: "),
        ("student_model: a\n---\nstudent_model: b\n", ":2: is no valid YAML: "),
        ("student_model: \x01\n", ": is no valid YAML: "),
        ("student_model: !!python/object:os.system {}\n", ":1: must be of the form"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nstudent_model: *b\n", ":3: must be of the form"),
        ("? [a]\n: b\n", ":1: must be of the form"),
        ("student_model: ''\n", ":1): must be the base model's name"),
    ],
)
def test_a_broken_config_is_named_with_its_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, words: str
) -> None:
    path = configured(monkeypatch, tmp_path, text)
    said = problems()
    assert any(str(path) in one and words in one for one in said), said


@pytest.mark.parametrize("text", ["# nothing\n", "student_model:\n", "student_model: ~\n"])
def test_a_config_that_sets_nothing_changes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    configured(monkeypatch, tmp_path, text)
    assert settings.load({}) == Settings()
    assert set(origins().values()) == {"default"}


def test_a_config_is_read_as_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    configured(monkeypatch, tmp_path, "student_model: 007\nstudent_adapter: 2026-99-99\n")
    assert settings.load({}).student_model == "007"
    assert settings.load({}).student_adapter == "2026-99-99"


def test_a_config_that_is_empty_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    configured(monkeypatch, tmp_path, "")
    assert "which is empty" in problems()[0]


def test_a_path_from_the_command_line_may_be_relative(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("x")
    monkeypatch.chdir(tmp_path)
    assert settings.load({"student_ca_file": Path("ca.pem")}).student_ca_file == tmp_path / "ca.pem"


def test_a_wrong_name_on_the_command_line_is_an_error() -> None:
    assert "student_modle (command line): is not a setting" in problems({"student_modle": "x"})[0]


def test_importing_takes_no_yaml_and_no_client() -> None:
    code = "import sys, bot.settings; print({'yaml', 'openai', 'httpx2'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
