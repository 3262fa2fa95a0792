"""The trainer's settings come from where the bot's come from, and neither stumbles over the other's."""

from pathlib import Path

import pytest

from bot import settings as bot_settings
from bot.settings import SettingsError
from trainer.settings import load


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    import os  # noqa: PLC0415 -- for this alone

    for name in [name for name in os.environ if name.startswith("APPRENTICE_")]:
        monkeypatch.delenv(name)


def test_the_bot_passes_over_what_is_the_trainers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "apprentice.yaml"
    config.write_text("teacher_model: large\ndebounce_seconds: 5\n")
    monkeypatch.setenv("APPRENTICE_CONFIG", str(config))
    monkeypatch.setenv("APPRENTICE_TEACHER_URL", "https://models.example/v1")
    monkeypatch.setenv("APPRENTICE_TRAIN_RANK", "8")
    assert bot_settings.load({}).debounce_seconds == 5
    chosen = load({})
    assert (chosen.teacher_model, chosen.train_rank, chosen.debounce_seconds) == ("large", 8, 5)
    assert chosen.teacher_url == "https://models.example/v1"


def test_the_defaults_send_no_code_and_spend_no_end() -> None:
    chosen = load({})
    assert not chosen.teacher_may_see_code
    assert chosen.teacher_url is None
    assert chosen.train_max_tokens < 10_000_000
    assert chosen.trainer_dir == chosen.data_dir / "trainer"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("TEACHER_URL", "models.example/v1", "must begin with http"),
        ("TEACHER_URL", "https://models.example", "must end in /v1: write https://models.example/v1"),
        ("TEACHER_MAY_SEE_CODE", "perhaps", "must be true or false"),
        ("TRAIN_RANK", "12", "must be a rank that vLLM takes: 1, 8, 16"),
        ("TRAIN_CRON", "0 2 * * 9", "five fields"),
        ("TRAIN_WINDOW", "22", "two hours of the day"),
        ("TRAIN_WINDOW", "6-6", "two hours of the day"),
        ("TRAIN_EXAMPLES", "/no/such/folder", "which is not a folder"),
        ("TRAIN_BASE", "models", "must be an absolute path"),
        ("TEACHER_CA_FILE", "ca.pem", "must name a file by its absolute path"),
        ("TRAIN_QUESTION", "5", "is not a setting; did you mean APPRENTICE_TRAIN_QUESTIONS?"),
    ],
)
def test_what_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str) -> None:
    monkeypatch.setenv(f"APPRENTICE_{name}", value)
    with pytest.raises(SettingsError, match=words.replace("?", r"\?")) as told:
        load({})
    assert name.lower() in str(told.value).lower()


def test_a_key_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPRENTICE_TEACHER_API_KEY", "sk-very-secret")
    assert "sk-very" not in repr(load({}))


def test_settings_that_do_not_go_together_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPRENTICE_TRAIN_BATCH", "6")
    monkeypatch.setenv("APPRENTICE_TRAIN_MICRO_BATCH", "4")
    with pytest.raises(SettingsError, match=r"APPRENTICE_TRAIN_BATCH \(6\) must be a multiple of .*\(4 x 1\)"):
        load({})
    monkeypatch.setenv("APPRENTICE_TRAIN_BATCH", "8")
    monkeypatch.setenv("APPRENTICE_TRAIN_PACKING", "true")
    monkeypatch.setenv("APPRENTICE_TRAIN_ENGINE", "toolkit")
    with pytest.raises(SettingsError, match="toolkit has neither packing"):
        load({})
