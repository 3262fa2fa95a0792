import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.cli import app
from tests.fakes.student import FINE, FakeStudent, Request, Said, serve, suspect
from tests.trainer.test_sources import ROW
from trainer import cli


def rows() -> Iterator[dict[str, object]]:
    for number in range(12):
        if number % 3:
            code = f"total_{number} = first_{number} / count_{number}\n"
            told = {"line": 1, "severity": "major", "category": "correctness", "title": "Zero", "explanation": "Zero."}
        else:
            code, told = f"name_{number} = read_{number}(path_{number})\n", {"severity": "none"}
        yield {"path": f"shop/part_{number}.py", "code": code} | told


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import os  # noqa: PLC0415 -- for this alone

    for name in [name for name in os.environ if name.startswith("APPRENTICE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("APPRENTICE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("APPRENTICE_STUDENT_RETRIES", "0")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows()))
    return tmp_path


def run(*arguments: str) -> int:
    assert cli.exam_app in [group.typer_instance for group in app.registered_groups]
    try:
        app(["exam", *arguments], standalone_mode=True)
    except SystemExit as ended:
        return int(ended.code or 0)
    raise AssertionError("the command line always exits")


def clever(request: Request) -> Said:
    return Said(suspect(severity="major") if "total_" in str(request["messages"]) else FINE)


@pytest.fixture
def student(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeStudent]:
    with serve(clever) as fake:
        monkeypatch.setenv("APPRENTICE_STUDENT_URL", fake.url)
        yield fake


def test_from_examples_to_a_comparison(
    folder: Path, student: FakeStudent, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("make", "rows.jsonl") == 0
    assert ", 12 questions: 4 none, 8 major\n" in capsys.readouterr().out
    assert run("sit", "--exam", "exam.json", "--out", "clever.jsonl", "--adapter", "student-r0001") == 3
    assert run("sit", "--exam", "exam.json", "--out", "clever.jsonl") == 0
    assert "clever.jsonl: no adapter on base, severity right 100.0% of 12 questions\n" in capsys.readouterr().out
    asked = len(student.requests)
    assert run("sit", "--exam", "exam.json", "--out", "clever.jsonl") == 0
    assert len(student.requests) == asked
    with serve(lambda _: Said(FINE)) as lazy:
        assert run("sit", "--exam", "exam.json", "--out", "lazy.jsonl", "--url", lazy.url) == 0
    capsys.readouterr()
    assert run("grade", "--exam", "exam.json", "--sitting", "clever.jsonl", "--against", "lazy.jsonl") == 0
    said = capsys.readouterr().out
    assert "The first one is better:\n  ✓ severity right 100.0% against 33.3%: 8 questions won, 0 lost" in said
    assert "  weak at: severity major: 0 of 8 right; 8 times it says none\n" in said
    assert run("grade", "--exam", "exam.json", "--sitting", "lazy.jsonl", "--against", "clever.jsonl", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["better"] is False
    assert [each["scores"]["accuracy"] for each in document["sittings"]] == [4 / 12, 1]
    assert run("grade", "--exam", "exam.json", "--sitting", "lazy.jsonl") == 0
    assert "better" not in capsys.readouterr().out
    del folder, monkeypatch


def test_rows_that_cannot_be_used_and_doubles_are_left_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "more.jsonl").write_text(f"{{\n{json.dumps(ROW)}\n{json.dumps(ROW)}\n")
    assert run("make", "more.jsonl", "--out", "e.json") == 0
    told = capsys.readouterr()
    assert ", 1 question: 1 critical; 1 left out: cannot be used; 1 left out: near another one\n" in told.out
    assert told.err == "left out: more.jsonl:1: it is not JSON\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["make", "no.jsonl"], "no.jsonl cannot be read: No such file or directory"),
        (["make", "empty.jsonl"], "there is no question in that"),
        (["sit", "--exam", "no.json", "--out", "s.jsonl"], "no.json cannot be read"),
        (["sit", "--exam", "rows.jsonl", "--out", "s.jsonl"], "rows.jsonl is no exam: make one with `apprentice exam"),
        (["sit", "--exam", "exam.json", "--out", "no/s.jsonl"], "no/s.jsonl cannot be written: No such file"),
        (["sit", "--exam", "exam.json", "--out", "other.jsonl"], "other.jsonl holds answers of another sitting"),
        (["sit", "--exam", "exam.json", "--out", "s.jsonl", "--url", "ftp://x"], "must begin with http"),
        (["grade", "--exam", "exam.json", "--sitting", "no.jsonl"], "no.jsonl cannot be read"),
        (["grade", "--exam", "exam.json", "--sitting", "rows.jsonl"], "rows.jsonl holds no sitting"),
        (["grade", "--exam", "exam.json", "--sitting", "empty.jsonl"], "empty.jsonl holds no sitting"),
    ],
)
def test_what_is_wrong_is_named(
    folder: Path, student: FakeStudent, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    (folder / "empty.jsonl").touch()
    (folder / "other.jsonl").write_text("an answer\n")
    run("make", "rows.jsonl")
    capsys.readouterr()
    assert run(*arguments) == 2
    assert words in capsys.readouterr().err
    assert student.requests == []


def test_a_student_that_fails_in_the_middle_loses_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run("make", "rows.jsonl")
    asked: list[int] = []

    def fails(request: Request) -> Said:
        asked.append(1)
        return Said("down", status=503) if len(asked) > 4 else clever(request)

    monkeypatch.setenv("APPRENTICE_STUDENT_CONCURRENCY", "1")
    with serve(fails) as fake:
        assert run("sit", "--exam", "exam.json", "--out", "s.jsonl", "--url", fake.url) == 3
    assert "What was answered is kept: the same command goes on with the rest." in capsys.readouterr().err
    assert len((folder / "s.jsonl").read_text().splitlines()) == 1 + 4
    assert run("sit", "--exam", "exam.json", "--out", "s.jsonl") == 3  # no student at all
    assert run("grade", "--exam", "exam.json", "--sitting", "s.jsonl") == 2
    assert "8 of 12 answers are missing" in capsys.readouterr().err
