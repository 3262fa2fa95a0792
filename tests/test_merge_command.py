"""`apprentice review URL` as a user runs it: a GitLab stand-in and a student over HTTP."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bot.feedback import SEEDS
from bot.forge import SUMMARY_MARKER
from bot.gitlab import door
from bot.thread import OUTDATED
from tests.e2e.place import careful
from tests.fakes import gitlab as fake_gitlab
from tests.fakes import student as fake_student
from tests.fakes.gitlab import GitLab, MergeRequest, Note, Project
from tests.fakes.gitlab import notes as rules
from tests.fakes.student import FakeStudent, Request, Said
from tests.test_review_command import Ran, apprentice, environment

pytestmark = pytest.mark.world

PAY = "def pay(cents):\n    query(f'insert {cents}')  # BUG\n    send(cents)\n"
TAX = "RATE = 19\nPERCENT = RATE / 10  # BUG\n"


@dataclass
class Place:
    """A merge request with two planted bugs, and the command."""

    gitlab: GitLab
    project: Project
    merge: MergeRequest
    student: FakeStudent
    folder: Path

    @property
    def settings(self) -> dict[str, str]:
        return {
            "APPRENTICE_GITLAB_URL": self.gitlab.url,
            "APPRENTICE_GITLAB_TOKEN": self.gitlab.bot_token,
            "APPRENTICE_STUDENT_URL": self.student.url,
            "APPRENTICE_DATA_DIR": str(self.folder / "data"),
        }

    def review(self, *arguments: str, url: str | None = None, **settings: str) -> Ran:
        given = self.settings | settings
        return apprentice("review", url or self.merge.web_url, *arguments, folder=self.folder, stdin=b"", **given)

    def policy(self, text: str) -> None:
        self.project.push("main", {".apprentice.yml": text})

    @property
    def notes(self) -> list[Note]:
        """What the bot wrote at lines."""
        return [note for note in self.merge.all_notes() if note.author is self.gitlab.bot and note.position]

    @property
    def summaries(self) -> list[str]:
        return [note.body for note in self.merge.all_notes() if note.body.endswith(SUMMARY_MARKER)]

    @property
    def statuses(self) -> list[tuple[str, str]]:
        return [(status.name, status.state) for status in self.project.statuses]

    @property
    def wrote(self) -> bool:
        """Whether anything but reading was asked of GitLab."""
        return any(request.method != "GET" for request in self.gitlab.requests)


@contextmanager
def place(folder: Path, answer: Callable[[Request], Said] = careful, *, root: str = "") -> Iterator[Place]:
    with fake_gitlab.serve(root=root) as gitlab, fake_student.serve(answer) as student:
        project = gitlab.project("team/tools/shop")
        project.push("main", {"README.md": "A shop.\n"})
        project.push("pay", {"pay.py": PAY, "tax.py": TAX})
        merge = project.open_merge_request("pay", title="Pay by query")
        yield Place(gitlab, project, merge, student, folder)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(door, "FIRST_WAIT", 0.01)
    with place(tmp_path) as made:
        yield made


# --- the dry run


def test_a_dry_run_prints_and_writes_nothing(here: Place) -> None:
    ran = here.review()
    assert ran.code == 0
    for words in ("pay.py:2", "tax.py:2", "2 findings shown", "2 files"):
        assert words in ran.out
    assert "nothing is posted" in ran.err
    assert not here.wrote
    assert not (here.folder / "data").exists()
    assert "Pay by query" in here.student.prompts[0]


@pytest.mark.parametrize("root", ["", "/gitlab"])
def test_the_json_of_any_of_its_pages(tmp_path: Path, root: str) -> None:
    with place(tmp_path, root=root) as here:
        ran = here.review("--format", "json", url=f"{here.merge.web_url}/diffs#note_1")
    assert ran.code == 0
    document = ran.json
    assert document["schema"] == 1
    shown = [(one["file"], one["line"]) for one in document["findings"] if one["shown"]]  # type: ignore[attr-defined]
    assert shown == [("pay.py", 2), ("tax.py", 2)]
    assert document["read"] == ["pay.py", "tax.py"]


@pytest.mark.parametrize("name", ["markdown", "sarif", "codequality"])
def test_the_other_formats(here: Place, name: str) -> None:
    ran = here.review("--format", name)
    assert ran.code == 0
    assert "pay.py" in ran.out
    assert name == "markdown" or json.loads(ran.out)


def test_policy_and_severity(here: Place) -> None:
    here.policy("severity: critical\n")
    assert "pay.py:2" not in here.review().out
    assert "pay.py:2" in here.review("--show-hidden").out
    assert "2 findings shown" in here.review("--severity", "major").out


def test_fail_on_counts_what_stands_there_already(here: Place) -> None:
    assert here.review("--fail-on", "critical").code == 0
    assert here.review("--fail-on", "major").code == 1
    assert here.review("--fail-on", "major", "--post").code == 1
    ran = here.review("--fail-on", "major")
    assert ran.code == 1
    assert "No findings" in ran.out
    assert "2 comments stand open" in ran.err


def test_one_that_is_not_open_is_read_all_the_same(here: Place) -> None:
    here.merge.close()
    ran = here.review()
    assert ran.code == 0
    assert "pay.py:2" in ran.out


def test_a_large_change_lists_what_gitlab_withholds(here: Place) -> None:
    here.gitlab.settings.raw_diffs = False
    here.project.push("pay", {"big.py": "x = 1\n" * 60_000})
    ran = here.review()
    assert "big.py" in ran.out
    assert "pay.py:2" in ran.out


# --- posting


def test_posting_says_it_on_the_merge_request(here: Place) -> None:
    ran = here.review("--post")
    assert ran.code == 0
    assert f"posted: 2 comments and the summary on {here.merge.web_url}" in ran.err
    assert "2 findings shown" in ran.out
    places = [(note.position.new_path, note.position.new_line) for note in here.notes if note.position]
    assert places == [("pay.py", 2), ("tax.py", 2)]
    assert [[award.name for award in note.awards] for note in here.notes] == [list(SEEDS)] * 2
    (summary,) = here.summaries
    assert "2 major" in summary
    assert here.merge.head[:8] in summary
    assert here.statuses == []  # the policy wants none


def test_posting_twice_says_it_once(here: Place) -> None:
    here.review("--post")
    ran = here.review("--post", "--show-hidden")
    assert ran.code == 0
    assert len(here.notes) == 2
    (summary,) = here.summaries
    assert "2 earlier comments of mine are still open" in summary
    assert "said before on this merge request" in ran.out
    assert "posted: 0 comments" in ran.err


def test_what_a_person_rejected_is_not_said_again(here: Place) -> None:
    here.review("--post")
    alice = here.project.add_member("alice")
    pay, tax = here.notes
    here.merge.reply(pay, alice, "That is wrong.")
    here.merge.resolve(tax, alice)
    ran = here.review("--post", "--show-hidden")
    assert ran.out.count("hidden: dismissed on this merge request") == 2
    assert len(here.notes) == 2


def test_threads_whose_code_is_gone_are_resolved(here: Place) -> None:
    here.policy("fail_on: major\n")
    here.review("--post")
    assert here.statuses == [("apprentice", "failed")]
    here.project.push("pay", {"pay.py": PAY.replace("  # BUG", "")})
    assert here.review("--fail-on", "major", "--post").code == 1
    pay, tax = (here.merge.discussion_of(note) for note in here.notes if note.body != OUTDATED)
    assert (pay.resolved, tax.resolved) == (True, False)
    assert pay.notes[-1].body == OUTDATED
    assert here.statuses[-1] == ("apprentice", "failed")
    here.project.push("pay", {"tax.py": "RATE = 19\n"})
    assert here.review("--fail-on", "major", "--post").code == 0
    assert here.statuses[-1] == ("apprentice", "success")


def test_a_thread_is_not_told_twice_that_its_code_is_gone(here: Place) -> None:
    here.review("--post")
    pay = here.merge.discussion_of(here.notes[0])
    here.project.push("pay", {"pay.py": PAY.replace("  # BUG", "")})
    here.gitlab.faults.add("500", method="PUT", pattern=f"/discussions/{pay.id}$")
    assert here.review("--post").code == 3  # the word is said, and the process was lost
    here.gitlab.faults.clear()
    assert here.review("--post").code == 0
    assert [note.body for note in pay.notes[1:]] == [OUTDATED]
    assert pay.resolved


def test_no_emoji_where_the_policy_wants_none(here: Place) -> None:
    here.policy("seed_votes: false\n")
    here.review("--post")
    assert [note.awards for note in here.notes] == [[], []]


def test_what_gitlab_takes_nowhere_stands_in_the_summary(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    here.policy("fail_on: major\n")
    here.gitlab.settings.file_positions = False
    monkeypatch.setattr(rules, "code_of", lambda *_: None)  # the stand-in's: it finds no line
    ran = here.review("--post")
    assert ran.code == 0
    assert "posted: 0 comments, 2 findings in the summary only, and the summary" in ran.err
    assert here.notes == []
    assert "**2 findings** could not be put at a line" in here.summaries[0]
    assert here.statuses == [("apprentice", "failed")]


def test_after_gitlab_failed_half_way_the_next_try_goes_on(here: Place) -> None:
    here.gitlab.faults.add("500_after", times=1, method="POST", pattern="bulk_publish")
    here.gitlab.faults.add("500", method="POST", pattern="/notes$")
    first = here.review("--post")
    here.gitlab.faults.clear()
    assert here.review("--post").code == 0
    assert first.code == 3
    assert {note.position.new_path for note in here.notes if note.position} == {"pay.py", "tax.py"}
    assert len(here.notes) == 2
    assert len(here.summaries) == 1


def test_nothing_is_posted_on_what_is_not_open(here: Place) -> None:
    here.merge.close()
    ran = here.review("--post")
    assert ran.code == 2
    assert "is closed: leave out --post" in ran.err
    assert here.student.prompts == []
    assert not here.wrote


@pytest.mark.parametrize("change", ["closed", "pushed"])
def test_nothing_is_posted_on_what_moved_on_during_the_review(tmp_path: Path, change: str) -> None:
    def answer(request: Request) -> Said:
        if change == "closed":
            made.merge.close()
        elif len(made.merge.versions) == 1:
            made.project.push("pay", {"pay.py": PAY + "# more\n"})
        return careful(request)

    with place(tmp_path, answer) as made:
        ran = made.review("--post")
        assert ran.code == 3
        assert "pay.py:2" in ran.out
        assert ("is closed" if change == "closed" else "has new commits. Run it again") in ran.err
        assert not made.wrote


def test_nothing_is_posted_when_the_student_is_lost(tmp_path: Path) -> None:
    with place(tmp_path, lambda _: Said(drop=True)) as here:
        ran = here.review("--post", APPRENTICE_STUDENT_RETRIES="0")
        assert ran.code == 3
        assert "nothing is posted: a part of the review is missing" in ran.err
        assert not here.wrote


def test_an_answer_that_is_none_is_told_in_the_summary(tmp_path: Path) -> None:
    with place(tmp_path, lambda _: Said("no JSON")) as here:
        assert here.review("--post").code == 3
        assert "pay.py" in here.summaries[0]


def test_nothing_to_review(here: Place) -> None:
    here.project.push("same", {"README.md": "A shop.\n"})
    merge = here.project.open_merge_request("same")
    ran = here.review("--post", url=merge.web_url)
    assert ran.code == 0
    assert here.student.prompts == []


# --- what is wrong


def test_a_merge_request_that_is_not_there(here: Place) -> None:
    for url in (f"{here.merge.web_url}99", here.merge.web_url.replace("tools", "others")):
        ran = here.review(url=url)
        assert ran.code == 2
        assert "404" in ran.err
        assert "is the bot a member of the project" in ran.err


def test_a_wrong_token(here: Place) -> None:
    token = "glpat-" + "wrong"
    ran = here.review(APPRENTICE_GITLAB_TOKEN=token)
    assert ran.code == 3
    assert "The token in APPRENTICE_GITLAB_TOKEN is wrong" in ran.err
    assert token not in ran.err


def test_a_token_that_may_only_read_is_enough_for_a_dry_run(here: Place) -> None:
    token = here.gitlab.token(here.gitlab.bot, scopes=("read_api",)).value
    assert here.review(APPRENTICE_GITLAB_TOKEN=token).code == 0
    ran = here.review("--post", APPRENTICE_GITLAB_TOKEN=token)
    assert ran.code == 3
    assert "pay.py:2" in ran.out
    assert "scope `api`" in ran.err


def test_the_token_goes_to_no_other_server(here: Place) -> None:
    with fake_gitlab.serve() as other:
        ran = here.review(url=f"{other.url}/team/tools/shop/-/merge_requests/1")
        assert ran.code == 2
        assert "is not the GitLab of APPRENTICE_GITLAB_URL" in ran.err
        assert other.requests == []
    assert here.gitlab.requests == []


def test_gitlab_that_is_down(here: Place) -> None:
    url = "http://127.0.0.1:9"
    ran = here.review(url=f"{url}/a/b/-/merge_requests/1", APPRENTICE_GITLAB_URL=url)
    assert ran.code == 3
    assert "Is GitLab up" in ran.err


def test_a_diff_that_is_not_prepared_yet(here: Place) -> None:
    here.merge.unprepared = 100
    ran = here.review()
    assert ran.code == 3
    assert "try again in a moment" in ran.err


def test_a_policy_with_mistakes(here: Place) -> None:
    here.policy("severity: blocker\n")
    ran = here.review("--post")
    assert ran.code == 2
    assert ".apprentice.yml:" in ran.err
    assert not here.wrote


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("https://gitlab.example/a/b/-/merge_requests/1", "--staged"), "exclude each other"),
        (("https://gitlab.example/a/b/-/merge_requests/1", "--range", "a..b"), "exclude each other"),
        (("https://gitlab.example/a/b/-/merge_requests/1", "--patch", "-"), "exclude each other"),
        (("https://gitlab.example/a/b/-/merge_requests/1", "--explain-config"), "leave the URL out"),
        (("--post",), "--post needs the URL"),
        (("https://gitlab.example/a/b/-/merge_requests/1",), "APPRENTICE_GITLAB_URL is not set"),
    ],
)
def test_a_command_line_that_means_nothing(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    ran = apprentice("review", *arguments, folder=tmp_path)
    assert ran.code == 2
    assert words in ran.err


@pytest.mark.process
def test_the_command_as_a_process(here: Place) -> None:
    command = [sys.executable, "-m", "bot", "review", here.merge.web_url, "--post", "--format", "json"]
    for _ in range(2):
        done = subprocess.run(
            command, cwd=here.folder, env=environment(**here.settings), capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["read"] == ["pay.py", "tax.py"]
        assert b"Traceback" not in done.stderr
    assert len(here.notes) == 2
    assert len(here.summaries) == 1
