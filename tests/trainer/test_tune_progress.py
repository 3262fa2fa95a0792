import json
from datetime import UTC, datetime, timedelta

import pytest

from trainer.tune.progress import Progress, by_step, cause, curve, ended, progress


def lines(*rows: dict[str, object]) -> list[str]:
    return [json.dumps(row) for row in rows]


TRAINING = lines({"step": 0, "loss": 2.5, "tps": 60.0}, {"step": 1, "loss": 2.0, "tps": 80.0})
VALIDATION = lines({"step": 1, "val_loss": 1.5}, {"step": 3, "val_loss": 1.7})


def test_before_the_first_step() -> None:
    assert progress([], [], 9) == Progress(0, 9)


def test_the_newest_step_and_the_best_validation() -> None:
    assert progress(TRAINING, VALIDATION, 9) == Progress(2, 9, 2.0, 1.7, 1.5, 80.0)


def test_of_a_step_that_was_made_again_after_a_resume_the_last_record_counts() -> None:
    again = [*TRAINING, *lines({"step": 1, "loss": 1.9})]
    assert by_step(again)[2]["loss"] == 1.9
    assert curve(again, "loss") == [(1, 2.5), (2, 1.9)]


@pytest.mark.parametrize("line", ["", '{"step": 2, "lo', "[]", "null", '{"loss": 1}', '{"step": "x"}', "3"])
def test_a_line_that_is_cut_is_left_out(line: str) -> None:
    assert len(by_step([*TRAINING, line])) == 2


def test_what_is_no_number_is_no_point() -> None:
    assert curve(lines({"step": 0, "loss": None}, {"step": 1}), "loss") == []


def stamped(*seconds: float) -> list[str]:
    start = datetime(2026, 11, 25, tzinfo=UTC)
    stamps = ((start + timedelta(seconds=each)).isoformat() for each in seconds)
    return lines(*({"step": step, "loss": 1.0, "timestamp": stamp} for step, stamp in enumerate(stamps)))


@pytest.mark.parametrize(
    ("seconds", "left"),
    [((0, 2, 4, 6), 12.0), ((0, 2, 4, 1000, 1002), 10.0), ((0,), None), ((), None)],
)
def test_how_long_it_will_take(seconds: tuple[float, ...], left: float | None) -> None:
    assert progress(stamped(*seconds), [], 10).seconds_left == left


@pytest.mark.parametrize(
    ("output", "end"),
    [
        (["step 3", "END finished 20", ""], ("finished", 20)),
        (["END stopped 3"], ("stopped", 3)),
        (["END stopped after three"], None),
        (["END finished x"], None),
        ([], None),
    ],
)
def test_how_it_says_that_it_ended(output: list[str], end: tuple[str, int] | None) -> None:
    assert ended(output) == end


OUT_OF_MEMORY = (
    "it ran out of memory; a smaller micro_batch or sequence_tokens needs less "
    "(torch.OutOfMemoryError: CUDA out of memory)"
)
FULL = "the disk is full (OSError: [Errno 28] No space left on device)"


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (
            ["Traceback (most recent call last):", "[rank0]: TypeError: no such key: dimm", "", "x"],
            "TypeError: no such key: dimm",
        ),
        (["[rank0]: torch.OutOfMemoryError: CUDA out of memory"], OUT_OF_MEMORY),
        (["OSError: [Errno 28] No space left on device"], FULL),
        (["a warning", "Killed", ""], "Killed"),
        ([], "it said nothing"),
        (["ValueError: " + "x" * 1000], "ValueError: " + "x" * 488),
    ],
)
def test_why_it_failed(output: list[str], words: str) -> None:
    assert cause(output) == words
