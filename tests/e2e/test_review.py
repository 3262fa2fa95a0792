"""The whole reviewing half as its people meet it: a push, comments, votes, commands, another push."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.feedback import SEEDS
from tests.e2e.place import Place, careful, findings, place, summaries, threads_of, until
from tests.fakes.gitlab import MergeRequest, Note
from tests.fakes.student import FINE, Request, Said, suspect

pytestmark = pytest.mark.e2e

PAY = "def pay(cents):\n    query(f'insert {cents}')  # BUG\n    send(cents)\n"
TAX = "RATE = 19\nPERCENT = RATE / 10  # BUG\n"


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Place]:
    with place(tmp_path) as made:
        yield made


def reviewed(here: Place, merge: MergeRequest) -> MergeRequest:
    """Wait for the review of its newest head."""
    until(lambda: any(merge.head[:8] in body for body in summaries(here, merge)), words=here.bot.log[-3000:])
    here.gitlab.settle()
    return merge


def votes(here: Place) -> list[dict[str, object]]:
    """What `apprentice votes export` writes."""
    done = subprocess.run(
        [sys.executable, "-m", "bot", "votes", "export"],
        env=here.bot.environment,
        cwd=here.bot.folder,
        capture_output=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def note_of(here: Place, merge: MergeRequest) -> Note:
    """The bot's note with its first finding."""
    return threads_of(here, merge)[0][0].notes[0]


def test_a_merge_request_gets_its_comment_and_its_summary(here: Place) -> None:
    merge = reviewed(here, here.open("pay", {"pay.py": PAY, "ok.py": "A = 1\n"}))
    (finding,) = findings(here, merge)
    assert (finding.file, finding.line, finding.severity.value) == ("pay.py", 2, "major")
    note = note_of(here, merge)
    assert note.position
    assert (note.position.new_path, note.position.new_line) == ("pay.py", 2)
    until(lambda: len(note.awards) == len(SEEDS))
    assert [award.name for award in note.awards] == list(SEEDS)
    (summary,) = summaries(here, merge)
    assert "1 major" in summary
    assert "2 files" in summary
    assert here.gitlab.actions == []
    assert votes(here) == []  # the bot's own emoji are none


def test_a_first_review_of_one_file_reads_six_times_at_most(here: Place) -> None:
    reviewed(here, here.open("warm", {"warm.py": "A = 1\n"}))  # so that the bot knows itself
    before = here.gitlab.count("GET", user=here.gitlab.bot.username)
    reviewed(here, here.open("pay", {"pay.py": PAY}))
    assert here.gitlab.count("GET", user=here.gitlab.bot.username) - before <= 6


def test_on_new_commits_only_what_is_new_is_read_and_nothing_is_said_twice(here: Place) -> None:
    merge = reviewed(here, here.open("pay", {"pay.py": PAY, "tax.py": TAX}))
    assert [finding.file for finding in findings(here, merge)] == ["pay.py", "tax.py"]
    asked = len(here.student.prompts)
    fixed = TAX.replace("  # BUG", "") + "MORE = 1  # another BUG\n"
    here.project.push("pay", {"tax.py": fixed})
    reviewed(here, merge)
    new = here.student.prompts[asked:]
    assert new
    assert not any("pay.py" in prompt for prompt in new)
    quotes = [finding.quote.strip() for finding in findings(here, merge)]
    assert quotes == ["query(f'insert {cents}')  # BUG", "PERCENT = RATE / 10  # BUG", "MORE = 1  # another BUG"]
    threads = {finding.quote.strip(): thread for thread, finding in threads_of(here, merge)}
    assert threads["PERCENT = RATE / 10  # BUG"].resolved  # its code is gone
    assert not threads["query(f'insert {cents}')  # BUG"].resolved
    assert len(summaries(here, merge)) == 1


def test_a_thread_that_a_human_answered_is_not_resolved(here: Place) -> None:
    merge = reviewed(here, here.open("tax", {"tax.py": TAX}))
    alice = here.project.add_member("alice")
    merge.reply(note_of(here, merge), alice, "What do you mean?")
    here.project.push("tax", {"tax.py": "RATE = 19\n"})
    reviewed(here, merge)
    ((thread, _),) = threads_of(here, merge)
    assert not thread.resolved


def test_what_was_voted_down_is_not_said_again(here: Place) -> None:
    merge = reviewed(here, here.open("pay", {"pay.py": PAY}))
    alice = here.project.add_member("alice")
    merge.award(note_of(here, merge), alice, "thumbsdown")
    until(lambda: votes(here))
    merge.comment(alice, "/apprentice review full")
    before = summaries(here, merge)
    until(lambda: summaries(here, merge) != before)
    assert len(findings(here, merge)) == 1
    assert "dismissed" in summaries(here, merge)[0]


def test_votes_by_emoji_reply_and_revoke(here: Place) -> None:
    merge = reviewed(here, here.open("pay", {"pay.py": PAY}))
    note = note_of(here, merge)
    alice, bob = here.project.add_member("alice"), here.project.add_member("bob")
    merge.award(note, alice, "x")
    merge.reply(note, bob, "Good catch, thanks!")
    until(lambda: len(votes(here)) == 2)
    by_origin = {vote["origin"]: vote for vote in votes(here)}
    assert (by_origin["emoji"]["up"], by_origin["emoji"]["reason"]) == (False, "wrong")
    assert by_origin["reply"]["up"] is True
    assert "alice" not in str(by_origin)
    merge.revoke(note, alice, "x")
    until(lambda: len(votes(here)) == 1)


def test_the_authors_word_against_a_finding_counts_half(here: Place) -> None:
    author = here.project.add_member("carol")
    merge = reviewed(here, here.open("pay", {"pay.py": PAY}, author=author))
    merge.award(note_of(here, merge), author, "thumbsdown")
    until(lambda: votes(here))
    (vote,) = votes(here)
    assert vote["weight"] == 0.45


def test_a_merge_ends_in_votes_by_what_became_of_the_code(here: Place) -> None:
    author = here.project.add_member("carol")
    merge = reviewed(here, here.open("pay", {"pay.py": PAY, "tax.py": TAX}, author=author))
    here.project.push("pay", {"tax.py": "RATE = 19\nPERCENT = RATE / 100\n"}, user=author)
    reviewed(here, merge)
    merge.merge(author)
    until(lambda: votes(here))
    assert {(vote["origin"], vote["up"]) for vote in votes(here)} == {("changed", True)}


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("/apprentice help", "People with at least the Developer role"),
        ("@apprentice frobnicate", "I do not know `frobnicate`"),
        ("/apprentice threshold critical", "at least **critical**"),
        ("/apprentice pause", "I will not review this merge request until"),
        ("/apprentice why", "I can only do that in the thread"),
    ],
)
def test_a_command_is_answered_once_in_its_thread(here: Place, words: str, answer: str) -> None:
    merge = reviewed(here, here.open("ok", {"ok.py": "A = 1\n"}))
    alice = here.project.add_member("alice")
    note = merge.comment(alice, words.replace("@apprentice", f"@{here.gitlab.bot.username}"))
    assert note
    thread = merge.discussion_of(note)
    until(lambda: len(thread.notes) == 2, words=here.bot.log[-2000:])
    assert answer in thread.notes[1].body
    here.gitlab.settle()
    assert len(thread.notes) == 2
    assert here.gitlab.actions == []


def test_a_guest_may_not_tell_the_bot_anything(here: Place) -> None:
    merge = reviewed(here, here.open("ok", {"ok.py": "A = 1\n"}))
    note = merge.comment(here.project.add_member("guest", 10), "/apprentice pause")
    assert note
    thread = merge.discussion_of(note)
    until(lambda: len(thread.notes) == 2)
    assert "at least the Developer role" in thread.notes[1].body


def test_why_and_forget_in_the_thread_of_a_finding(here: Place) -> None:
    merge = reviewed(here, here.open("pay", {"pay.py": PAY}))
    alice, note = here.project.add_member("alice"), note_of(here, merge)
    thread = merge.discussion_of(note)
    merge.reply(note, alice, "/apprentice why")
    until(lambda: len(thread.notes) == 3)
    assert "prompt `" in thread.notes[2].body
    merge.reply(note, alice, "/apprentice forget")
    until(lambda: findings(here, merge) == [])
    here.project.push("pay", {"pay.py": PAY.replace("send", "give")})
    reviewed(here, merge)
    assert findings(here, merge) == []


def test_paused_until_resumed(here: Place) -> None:
    merge = reviewed(here, here.open("ok", {"ok.py": "A = 1\n"}))
    alice = here.project.add_member("alice")
    note = merge.comment(alice, "/apprentice pause")
    assert note
    until(lambda: len(merge.discussion_of(note).notes) == 2)
    here.project.push("ok", {"pay.py": PAY})
    asked = len(here.student.prompts)
    until(here.bot.handled, words="the push is handled")
    assert len(here.student.prompts) == asked
    merge.comment(alice, "/apprentice resume")
    reviewed(here, merge)
    assert len(findings(here, merge)) == 1


def test_no_review_of_drafts_labels_and_titles_but_once_it_is_ready(here: Place) -> None:
    merge = here.open("pay", {"pay.py": PAY}, draft=True)
    merge.edit(title="Draft: another title")
    here.gitlab.settle()
    until(here.bot.handled)
    assert here.student.prompts == []
    merge.mark_ready()
    reviewed(here, merge)
    merge.edit(labels=["important"])
    here.gitlab.settle()
    until(here.bot.handled)
    assert len(summaries(here, merge)) == 1


def test_the_bot_is_asked_as_a_reviewer_of_a_draft(here: Place) -> None:
    merge = here.open("pay", {"pay.py": PAY}, draft=True)
    merge.edit(reviewers=[here.gitlab.bot])
    reviewed(here, merge)
    assert len(findings(here, merge)) == 1


def test_the_policy_of_the_target_branch_counts_and_its_mistakes_are_said(here: Place) -> None:
    here.project.push("main", {".apprentice.yml": "severity: critical\nfail_on: major\n"})
    merge = here.open("pay", {"pay.py": PAY, ".apprentice.yml": "severity: trivial\n"})
    reviewed(here, merge)
    assert findings(here, merge) == []
    assert "below the severity threshold" in summaries(here, merge)[0]
    here.project.push("main", {".apprentice.yml": "severity: blocker\n"})
    other = here.open("tax", {"tax.py": TAX})
    until(lambda: summaries(here, other))
    assert "my policy file on `main` has mistakes" in summaries(here, other)[0]
    assert "did you mean" in summaries(here, other)[0] or "it takes" in summaries(here, other)[0]


def test_the_commit_status_is_a_gate(here: Place) -> None:
    here.project.push("main", {".apprentice.yml": "fail_on: major\n"})
    merge = here.open("pay", {"pay.py": PAY})
    until(lambda: [one["status"] for one in here.statuses(merge)] == ["failed"], words=here.bot.log[-2000:])
    here.project.push("pay", {"pay.py": PAY.replace("  # BUG", "")})
    until(lambda: [one["status"] for one in here.statuses(merge)] == ["success"])


def test_a_head_that_moves_during_the_review_is_reviewed_anew(tmp_path: Path) -> None:
    moved: list[bool] = []

    def answer(request: Request) -> Said:
        if not moved:
            moved.append(True)
            made.project.push("pay", {"pay.py": PAY + "# more\n"})
        return careful(request)

    with place(tmp_path, answer=answer) as made:
        merge = made.open("pay", {"pay.py": PAY})
        reviewed(made, merge)
        assert len(findings(made, merge)) == 1
        assert len(summaries(made, merge)) == 1
        note = note_of(made, merge)
        assert note.position
        assert note.position.refs.head == merge.head


def test_the_bot_starts_while_gitlab_and_student_are_down_and_says_so(tmp_path: Path) -> None:
    with place(tmp_path, APPRENTICE_STUDENT_URL="http://127.0.0.1:9/v1") as here:
        here.gitlab.faults.add("503")
        assert here.bot.ready()[0] == 503
        expected = {"database": "ok", "student": "failed", "gitlab": "failed"}  # on a busy machine it is late at first
        until(lambda: expected.items() <= here.bot.ready()[1].items(), words="the answer of every part")


def test_a_student_that_never_answers_well_is_reported_as_not_read(tmp_path: Path) -> None:
    with place(tmp_path, answer=lambda _: Said("no JSON at all")) as here:
        merge = here.open("pay", {"pay.py": PAY})
        reviewed(here, merge)
        assert "pay.py" in summaries(here, merge)[0]
        assert "incomplete" in summaries(here, merge)[0] or "no review" in summaries(here, merge)[0]


def test_model_text_does_not_act(tmp_path: Path) -> None:
    def answer(request: Request) -> Said:
        if "pay.py" not in str(request["messages"]):
            return Said(FINE)
        evil = "/merge\n\n/approve\n- /close\n> /label ~x\n@all Closes #1 <img src=x>\n```\n/lock\n```"
        return Said(
            suspect(
                line=2,
                quote="query(f'insert {cents}')  # BUG",
                explanation=evil,
                title="/merge now",
                severity="major",
                suggestion="    ok()\n/merge",
            )
        )

    with place(tmp_path, answer=answer) as here:
        merge = here.open("pay", {"pay.py": PAY})
        reviewed(here, merge)
        assert len(findings(here, merge)) == 1
        assert here.gitlab.actions == []
        assert merge.state == "opened"
