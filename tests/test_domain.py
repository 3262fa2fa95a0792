import pytest

from bot.domain import Severity


def test_severities_are_ordered_and_compare_with_nothing_else() -> None:
    assert sorted(Severity, reverse=True) == [Severity.CRITICAL, Severity.MAJOR, Severity.MINOR, Severity.TRIVIAL]
    with pytest.raises(TypeError):
        assert Severity.MAJOR < "minor"
