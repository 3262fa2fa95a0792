import pytest

from bot.domain import MergeRef, Severity


def test_severities_are_ordered_and_compare_with_nothing_else() -> None:
    assert sorted(Severity, reverse=True) == [Severity.CRITICAL, Severity.MAJOR, Severity.MINOR, Severity.TRIVIAL]
    with pytest.raises(TypeError):
        assert Severity.MAJOR < "minor"


def test_a_merge_request_is_written_as_gitlab_writes_it() -> None:
    assert str(MergeRef(7, 12)) == "7!12"
