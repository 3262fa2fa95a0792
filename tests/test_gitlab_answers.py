"""GitLab's answers as values: what others recorded on real servers, and what may be null."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import pytest

from bot.forge import Anchor, Award, DiffRefs, Person
from bot.gitlab import answers
from bot.gitlab.changes import file_of

RECORDED = Path(__file__).parents[2] / "shared" / "gitlab"

_Answer = TypeVar("_Answer", bound=answers.Answer)


def recorded(name: str) -> object:
    """What a real GitLab answered, as others recorded it."""
    path = RECORDED / name
    if not path.exists():
        pytest.skip(f"there is no {path}: the recorded answers are not part of this repository")
    text = path.read_text(encoding="utf-8")
    if text.startswith("HTTP/"):
        text = re.split(r"\r?\n\r?\n", text, maxsplit=1)[1]
    said: object = json.loads(text)
    if name.startswith("danger-js/") and isinstance(said, list):
        said = said[0]["response"]
    return said


def read_all(model: type[_Answer], name: str) -> list[_Answer]:
    said = recorded(name)
    return [model.model_validate(each) for each in (said if isinstance(said, list) else [said])]


@pytest.mark.shared
@pytest.mark.parametrize(
    "name",
    [
        "atlantis/gitlab-get-merge-request.json",
        "atlantis/gitlab-get-merge-request-subgroup.json",
        "atlantis/detailed-merge-status-ci-must-pass.json",
        "atlantis/pipeline-work-in-progress.json",
        "atlantis/merge-success.json",
        "client-go/get_merge_request.json",
        "client-go/get_merge_requests.json",
        "danger-js/getMergeRequestInfo.json",
        "danger-ruby/merge_request_1_response.json",
        "go-scm/merge.json",
        "go-scm/merges.json",
    ],
)
def test_recorded_merge_requests(name: str) -> None:
    for said in read_all(answers.Merge, name):
        merge = said.value()
        assert (merge.ref.project, merge.ref.iid) == (said.project_id, said.iid)
        assert merge.author.username
        assert merge.source_branch
        assert merge.web_url.startswith("http")
        assert merge.refs is None or re.fullmatch(r"[0-9a-f]{40}", merge.refs.head)


@pytest.mark.shared
@pytest.mark.parametrize(
    "name",
    [
        "danger-js/getMergeRequestDiffs.json",
        "go-scm/commit_diff.json",
        "go-scm/merge_diffs.json",
        "go-scm/merge_diffs_page2.json",
    ],
)
def test_recorded_diffs(name: str) -> None:
    for said in read_all(answers.Diff, name):
        file = file_of(said)
        assert file.path in {said.old_path, said.new_path}
        assert file.unreadable is None
        assert file.changed_count > 0


@pytest.mark.shared
def test_a_recorded_comparison() -> None:
    said = answers.Compare.model_validate(recorded("danger-js/getCompareChanges.json"))
    assert said.commits
    assert all(commit.parent_ids for commit in said.commits)
    assert said.diffs
    assert said.compare_timeout is False


@pytest.mark.shared
@pytest.mark.parametrize(
    "name",
    [
        "danger-js/getMergeRequestDiscussions.json",
        "danger-ruby/merge_request_1_discussions_response.json",
        "danger-ruby/merge_request_1_discussions_empty_response.json",
    ],
)
def test_recorded_discussions(name: str) -> None:
    for said in read_all(answers.Discussion, name):
        thread = said.value()
        assert thread.notes
        assert all(note.created_at.tzinfo is UTC for note in thread.notes)


@pytest.mark.shared
def test_a_recorded_note_on_a_line_has_its_place() -> None:
    threads = read_all(answers.Discussion, "danger-ruby/merge_request_1_discussions_response.json")
    places = [thread.notes[0].value().anchor for thread in threads if thread.notes[0].position]
    assert places
    assert all(place and (place.old_line or place.new_line) for place in places)


@pytest.mark.shared
@pytest.mark.parametrize(
    "name", ["danger-js/getMergeRequestNotes.json", "go-scm/merge_notes.json", "go-scm/merge_note.json"]
)
def test_recorded_notes(name: str) -> None:
    assert all(said.value().author.username for said in read_all(answers.Note, name))


@pytest.mark.shared
def test_recorded_drafts() -> None:
    codes = [draft.line_code for draft in read_all(answers.Draft, "client-go/list_draft_notes.json")]
    assert codes == [None, "3dacf79e0d779e2baa1c700cf56510e42f55cf85_10_9"]


@pytest.mark.shared
def test_others_that_were_recorded() -> None:
    (award,) = read_all(answers.Award, "go-scm/award_emoji.json")
    when = datetime(2016, 6, 15, 10, 9, 34, 206000, tzinfo=UTC)
    assert award.value() == Award(344, "thumbsup", Person(1, "root"), when)
    (user,) = read_all(answers.User, "danger-js/getUser.json")
    assert user.value() == Person(92864, "username")
    (project,) = read_all(answers.Project, "atlantis/project-success.json")
    assert project.path_with_namespace == "lkysow/atlantis-example"
    assert [hook.enable_ssl_verification for hook in read_all(answers.Hook, "go-scm/hooks.json")] == [True]


# --- what may be null


MERGE: dict[str, object] = {
    "iid": 1,
    "project_id": 2,
    "title": "Mend it",
    "author": {"id": 3},
    "state": "opened",
    "source_branch": "fix",
    "target_branch": "main",
    "web_url": "https://gitlab.example/a/b/-/merge_requests/1",
}
SHA = "a" * 40


@pytest.mark.parametrize(
    ("draft", "work_in_progress", "is_draft"),
    [(True, None, True), (None, True, True), (False, True, False), (None, None, False), (True, False, True)],
)
def test_a_draft_by_the_new_field_or_by_the_old_one(
    *, draft: bool | None, work_in_progress: bool | None, is_draft: bool
) -> None:
    said = answers.Merge.model_validate({**MERGE, "draft": draft, "work_in_progress": work_in_progress})
    assert said.value().draft is is_draft


@pytest.mark.parametrize(
    ("diff_refs", "refs"),
    [
        (None, None),
        ({"base_sha": SHA, "start_sha": SHA, "head_sha": SHA}, DiffRefs(SHA, SHA, SHA)),
        ({"base_sha": SHA, "start_sha": SHA, "head_sha": None}, None),
        ({"base_sha": None, "start_sha": None, "head_sha": SHA}, None),
        ({"base_sha": SHA, "start_sha": "", "head_sha": SHA}, None),
    ],
)
def test_refs_are_there_wholly_or_not_at_all(diff_refs: object, refs: DiffRefs | None) -> None:
    assert answers.Merge.model_validate({**MERGE, "diff_refs": diff_refs}).value().refs == refs


def test_the_fork_of_a_merge_request_may_be_deleted() -> None:
    merge = answers.Merge.model_validate({**MERGE, "source_project_id": None, "description": None}).value()
    assert (merge.source_project, merge.description, merge.reviewers, merge.changes_count) == (2, "", (), "")


@pytest.mark.parametrize(
    ("position", "anchor"),
    [
        ({"old_path": None, "new_path": None, "new_line": None}, None),
        ({"old_path": "a", "new_path": None, "old_line": 1}, Anchor("a", "a", 1, None)),
        ({"old_path": None, "new_path": "b", "new_line": 2}, Anchor("b", "b", None, 2)),
        ({"old_path": "a", "new_path": "b", "line_range": None}, Anchor("a", "b", None, None)),
        ({"old_path": "a", "new_path": "b", "line_range": {"start": None}}, Anchor("a", "b", None, None)),
        (
            {
                "old_path": "a",
                "new_path": "b",
                "new_line": 4,
                "line_range": {"start": {"line_code": "x_1_2", "old_line": 1, "new_line": 2}, "end": {}},
            },
            Anchor("a", "b", None, 4, 1, 2, "", "x_1_2"),
        ),
        (
            {"new_path": "b", "new_line": 4, "line_range": {"start": {"line_code": None}}},
            Anchor("b", "b", None, 4),
        ),
    ],
)
def test_a_place(position: object, anchor: Anchor | None) -> None:
    assert answers.Position.model_validate(position).anchor() == anchor


def test_what_belongs_to_nobody_here_is_nobodys() -> None:
    said = {"id": 1, "author": None, "body": None, "created_at": "2026-01-01T00:00:00Z"}
    note = answers.Note.model_validate(said).value()
    assert (note.author, note.body) == (Person(0, ""), "")


def test_files_may_be_counted_by_a_number() -> None:
    assert answers.Merge.model_validate({**MERGE, "changes_count": 3}).value().changes_count == "3"


def test_times_are_told_in_utc() -> None:
    said = {"id": 1, "author": {"id": 2}, "body": "", "created_at": "2026-01-01T02:00:00.000+02:00"}
    when = answers.Note.model_validate(said).value().created_at
    assert (when, when.tzinfo) == (datetime(2026, 1, 1, tzinfo=UTC), UTC)
