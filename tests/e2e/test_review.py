"""The whole reviewing half as its people meet it: a push, comments, votes, commands, another push."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bot.feedback import SEEDS
from tests.e2e.place import Place, findings, place, summaries, until

pytestmark = pytest.mark.e2e

PAY = "def pay(cents):\n    query(f'insert {cents}')  # BUG\n    send(cents)\n"


@pytest.fixture
def here(tmp_path: Path):
    with place(tmp_path) as made:
        yield made


def test_a_merge_request_gets_its_comment_and_summary(here: Place) -> None:
    merge = here.open("pay", {"pay.py": PAY})
    until(lambda: summaries(here, merge), words=here.bot.log[-2000:])
    (finding,) = findings(here, merge)
    assert (finding.file, finding.line) == ("pay.py", 2)
