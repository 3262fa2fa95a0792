"""The stand-in keeps GitLab's rules: who may do what, what a change looks like, which lines take a note."""

import difflib
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import gitlab
import pytest
import requests
from gitlab.exceptions import GitlabError, GitlabHttpError
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.gitlab import DEVELOPER, OWNER, REPORTER, serve
from tests.fakes.gitlab.positions import Mapper
from tests.fakes.gitlab.repository import Content, FileChange
from tests.gitlab_world import NEW, OLD, Data, World, made, refused

pytestmark = pytest.mark.world

BAD_LINE = """400 Bad request - Note {:line_code=>["can't be blank", "must be a valid line code"]}"""


@pytest.fixture
def world() -> Iterator[World]:
    with made() as one:
        yield one


@pytest.fixture(scope="module")
def steady() -> Iterator[World]:
    """For tables of cases that do not disturb each other."""
    with made() as one:
        yield one


# --- the server


def test_it_starts_at_once_and_serves_many_at_a_time() -> None:
    begun = time.monotonic()
    with serve() as server:
        assert time.monotonic() - begun < 0.2
        headers = {"PRIVATE-TOKEN": server.bot_token}
        with ThreadPoolExecutor(8) as pool:
            answers = list(
                pool.map(lambda _: requests.get(f"{server.url}/api/v4/user", headers=headers, timeout=5), range(64))
            )
        assert {answer.status_code for answer in answers} == {200}
        assert server.count("GET", "^/user$", user="apprentice") == 64


@pytest.mark.parametrize("root", ["", "/gitlab"])
def test_a_project_is_found_by_number_and_by_path_below_a_relative_root(root: str) -> None:
    with serve(root=root) as server, gitlab.Gitlab(server.url, private_token=server.bot_token) as client:
        number = server.project("a/b/c").id
        assert client.projects.get("a/b/c").id == client.projects.get(number).id == number
        assert client.projects.get(number).web_url == f"{server.url}/a/b/c"
        assert [one.path_with_namespace for one in client.groups.get("a").projects.list(get_all=True)] == []
        inside = client.groups.get("a").projects.list(get_all=True, include_subgroups=True)
        assert [one.path_with_namespace for one in inside] == ["a/b/c"]


def test_who_may_not_see_a_project_gets_404_and_who_may_not_do_something_403(world: World) -> None:
    server = world.server
    stranger = server.token("mallory").value
    developer = server.token(world.alice).value
    reporter = server.token(world.project.add_member("rob", REPORTER)).value
    discussion = world.post("/discussions", body="hm", position=world.position(new_line=10))

    def status(token: str, path: str, method: str = "GET") -> tuple[int, object]:
        url = f"{server.url}/api/v4{path}"
        answer = requests.request(method, url, headers={"PRIVATE-TOKEN": token}, timeout=5)
        return answer.status_code, answer.json().get("message")

    thread = f"{world.path}/discussions/{discussion['id']}?resolved=true"
    assert status("wrong", world.path) == (401, "401 Unauthorized")
    assert status(stranger, world.path) == (404, "404 Project Not Found")
    assert status(developer, world.path)[0] == 200
    assert status(developer, f"/projects/{world.project.id}/hooks") == (403, "403 Forbidden")
    assert status(reporter, thread, "PUT") == (403, "403 Forbidden")
    assert status(developer, thread, "PUT")[0] == 200


def test_tokens_expire_and_have_scopes() -> None:
    with serve() as server:
        server.project("a/b")
        reader = server.token("apprentice", scopes=("read_api",))
        headers = {"Authorization": f"Bearer {reader.value}"}
        url = f"{server.url}/api/v4/projects/1"
        assert requests.get(url, headers=headers, timeout=5).status_code == 200
        refusal = requests.post(f"{url}/merge_requests", headers=headers, timeout=5)
        assert (refusal.status_code, refusal.json()["error"]) == (403, "insufficient_scope")
        own = requests.get(f"{server.url}/api/v4/personal_access_tokens/self", headers=headers, timeout=5).json()
        assert (own["scopes"], own["active"]) == (["read_api"], True)
        server.advance(timedelta(days=366).total_seconds())
        refusal = requests.get(url, headers=headers, timeout=5)
        assert (refusal.status_code, refusal.json()["error"]) == (401, "invalid_token")


def test_levels_come_from_the_groups_too(world: World) -> None:
    eve = world.server.user("eve")
    world.server.group("team").members[eve.id] = OWNER
    members = world.client.projects.get(world.project.id, lazy=True).members_all
    assert members.get(eve.id).access_level == OWNER
    assert members.get(world.alice.id).access_level == DEVELOPER
    with pytest.raises(GitlabError) as error:
        members.get(999)
    assert refused(error) == (404, "404 Not found")


# --- changes


def test_diffs_come_from_git_in_pages(world: World) -> None:
    answer = requests.get(
        f"{world.server.url}/api/v4{world.path}/diffs?per_page=2",
        headers={"PRIVATE-TOKEN": world.server.bot_token},
        timeout=5,
    )
    assert (answer.headers["X-Next-Page"], answer.headers["X-Total"], answer.headers["X-Per-Page"]) == ("2", "4", "2")
    assert 'page=2&per_page=2>; rel="next"' in answer.headers["Link"]
    files = world.files(per_page=1)
    assert str(files["app.py"]["diff"]).startswith("@@ -7,7 +7,8 @@ line 6\n line 7\n")
    assert files["new.py"]["diff"] == "@@ -0,0 +1,2 @@\n+one\n+two\n"
    assert (files["new.py"]["new_file"], files["gone.py"]["deleted_file"]) == (True, True)
    assert (files["new/name.py"]["old_path"], files["new/name.py"]["renamed_file"]) == ("old/name.py", True)
    assert world.get()["changes_count"] == "4"
    first = world.all("/diffs?unidiff=true")[0]
    assert str(first["diff"]).startswith("--- a/app.py\n+++ b/app.py\n@@")


def test_odd_files_look_as_in_gitlab(world: World) -> None:
    odd: dict[str, Content] = {
        "bin": b"\0\1",
        "run.sh": ("100755", b"true\n"),
        "link": ("120000", b"app.py"),
        "sub": ("160000", b"1" * 40),
        "än 'umlaut\" and blank.txt": "no newline at the end",
    }
    world.project.push("odd", odd)
    merge = world.project.open_merge_request("odd")
    files = world.files(merge)
    assert files["bin"]["diff"] == "Binary files /dev/null and b/bin differ\n"
    assert (files["run.sh"]["b_mode"], files["link"]["b_mode"], files["sub"]["b_mode"]) == (
        "100755",
        "120000",
        "160000",
    )
    assert files["sub"]["diff"] == f"@@ -0,0 +1 @@\n+Subproject commit {'1' * 40}\n"
    assert str(files["än 'umlaut\" and blank.txt"]["diff"]).endswith("\n\\ No newline at end of file\n")
    world.project.push_commit("was-odd", merge.head)
    world.project.push("odd", {"link": "a file now\n", "run.sh": ("100644", b"true\n")})
    changes = world.project.open_merge_request("odd", "was-odd").changes
    assert [(one.new_path, one.status, one.a_mode, one.b_mode) for one in changes] == [
        ("link", "D", "120000", "0"),
        ("link", "A", "0", "100644"),
        ("run.sh", "M", "100755", "100644"),
    ]


def test_large_files_come_without_their_text_and_many_are_cut_off(world: World) -> None:
    limits = world.server.settings.limits
    limits.collapsed_bytes, limits.too_large_bytes = 1000, 3000
    world.project.push("fix", {"app.py": OLD + "x" * 2000, "new.py": "y" * 5000})
    files = world.files()
    assert (files["app.py"]["diff"], files["app.py"]["collapsed"], files["app.py"]["too_large"]) == ("", True, False)
    assert (files["new.py"]["diff"], files["new.py"]["collapsed"], files["new.py"]["too_large"]) == ("", False, True)
    raw = requests.get(
        f"{world.server.url}/api/v4{world.path}/raw_diffs",
        headers={"PRIVATE-TOKEN": world.server.bot_token},
        timeout=5,
    )
    assert "y" * 5000 in raw.text
    assert raw.text.count("\ndiff --git ") == 3
    limits.files = 3
    assert (len(world.all("/diffs")), world.get()["changes_count"]) == (3, "3+")


def test_a_new_merge_request_is_not_ready_for_a_moment(world: World) -> None:
    world.server.settings.unprepared_gets = 2
    world.project.push("other", {"x": "x"})
    merge = world.project.open_merge_request("other")
    for ready in (False, False, True):
        assert len(world.client.http_list(f"/projects/1/merge_requests/{merge.iid}/diffs", get_all=True)) == ready
        seen = world.client.http_get(f"/projects/1/merge_requests/{merge.iid}")
        assert isinstance(seen, dict)
        assert (seen["diff_refs"] is not None) == (seen["changes_count"] is not None) == ready
        assert (seen["prepared_at"] is not None) == ready


def test_versions_and_compare_tell_what_a_push_brought(world: World) -> None:
    before = world.merge.head
    after = world.project.push("fix", {"new.py": "one\nthree\n"})
    versions = world.all("/versions")
    assert [one["head_commit_sha"] for one in versions] == [after, before]
    project = world.client.projects.get(world.project.id, lazy=True)
    since = project.repository_compare(before, after)
    assert isinstance(since, dict)
    assert [one["new_path"] for one in since["diffs"]] == ["new.py"]
    assert project.files.raw("new.py", ref=after) == b"one\nthree\n"
    assert project.files.get("new/name.py", ref=before).decode().startswith(b"moved 0\n")
    with pytest.raises(GitlabError) as error:
        project.files.raw("none.py", ref=after)
    assert refused(error) == (404, "404 File Not Found")
    rewritten = world.project.push("fix", {"new.py": "four\n"}, force=True)
    common = project.repository_merge_base([after, rewritten])
    assert isinstance(common, dict)
    assert common["id"] == before


def test_a_fork_s_head_is_in_the_target_project(world: World) -> None:
    fork = world.project.fork("zoe/shop")
    zoe = fork.add_member("zoe")
    head = fork.push("idea", {"idea.py": "print()\n"}, user=zoe)
    merge = world.project.open_merge_request("idea", author=zoe, source_project=fork)
    project = world.client.projects.get(world.project.id, lazy=True)
    seen = project.mergerequests.get(merge.iid)
    assert (seen.source_project_id, seen.sha) == (fork.id, head)
    assert project.files.raw("idea.py", ref=head) == b"print()\n"


# --- places


@pytest.mark.parametrize(
    ("place", "code"),
    [
        ({"new_line": 10}, "_11_10"),
        ({"new_line": 11}, "_11_11"),
        ({"old_line": 10}, "_10_10"),
        ({"old_line": 30}, "_30_31"),
        ({"old_line": 7, "new_line": 7}, "_7_7"),
        ({"old_line": 31, "new_line": 31}, "_31_31"),
        ({"new_path": "new.py", "old_path": "new.py", "new_line": 2}, "_0_2"),
        ({"new_path": "gone.py", "old_path": "gone.py", "old_line": 1}, "_1_0"),
        ({"new_path": "new/name.py", "old_path": "old/name.py", "new_line": 6}, "_7_6"),
        ({"new_path": "new/name.py", "old_path": "old/name.py", "old_line": 7, "new_line": 7}, "_7_7"),
    ],
)
def test_a_line_in_a_hunk_takes_a_note(steady: World, place: Data, code: str) -> None:
    seen = steady.say(**place)
    assert seen["type"] == "DiffNote"
    note = steady.merge.note(int(str(seen["id"])))
    assert note is not None
    assert str(note.line_code).endswith(code)
    draft = steady.post("/draft_notes", note="hm", position=steady.position(**place))
    assert draft["line_code"] == note.line_code


@pytest.mark.parametrize(
    "place",
    [
        {"new_line": 7},  # a context line by one side
        {"old_line": 7},
        {"old_line": 31, "new_line": 32},  # two sides of different lines
        {"new_line": 20},  # outside of the hunks
        {"old_line": 20, "new_line": 21},
        {"new_line": 400},
        {"new_path": "nowhere.py", "old_path": "nowhere.py", "new_line": 1},
        {"new_path": "new/name.py", "old_path": "new/name.py", "old_line": 6, "new_line": 6},  # the old path is another
        {"head_sha": "1" * 40, "new_line": 10},
    ],
)
def test_other_lines_are_refused_by_discussions_and_swallowed_by_drafts(steady: World, place: Data) -> None:
    with pytest.raises(GitlabHttpError) as error:
        steady.say(**place)
    assert refused(error) == (400, BAD_LINE)
    draft = steady.post("/draft_notes", note="lost", position=steady.position(**place))
    assert draft["line_code"] is None
    steady.post("/draft_notes/bulk_publish")
    assert "lost" not in [note.body for note in steady.merge.all_notes()]
    assert not steady.all("/draft_notes")


def test_a_position_must_be_whole_and_an_object(world: World) -> None:
    position = world.position(new_line=10)
    del position["start_sha"]
    with pytest.raises(GitlabHttpError) as error:
        world.post("/draft_notes", note="hm", position=position)
    assert refused(error) == (400, "position[start_sha] is missing")
    with pytest.raises(GitlabHttpError) as error:
        world.post("/discussions", body="hm", position=json.dumps(position))
    assert refused(error) == (400, "position is invalid")
    with pytest.raises(GitlabHttpError) as error:
        world.say()
    assert "is incomplete" in refused(error)[1]


def test_a_whole_file_takes_a_note_since_16_4(world: World) -> None:
    assert world.say(position_type="file")["position"] == world.position(position_type="file")
    world.server.settings.file_positions = False
    with pytest.raises(GitlabHttpError) as error:
        world.say(position_type="file")
    assert refused(error) == (400, "position[position_type] does not have a valid value")


def test_positions_move_along_with_pushes_or_become_outdated(world: World) -> None:
    changed, removed, context = world.say(new_line=10), world.say(old_line=30), world.say(old_line=7, new_line=7)
    whole = world.say(position_type="file", new_path="new.py", old_path="new.py")
    old = world.merge.refs
    world.project.push("fix", {"app.py": "top\n" + NEW})

    def places() -> list[tuple[object, object, object]]:
        positions = [world.note(one["id"])["position"] for one in (changed, removed, context)]
        return [(at["old_line"], at["new_line"], at["head_sha"]) for at in positions if isinstance(at, dict)]

    first = world.merge.head
    assert places() == [(None, 11, first), (30, None, first), (7, 8, first)]
    world.project.push("fix", {"app.py": ("top\n" + NEW).replace("LINE 10\n", "").replace("line 7\n", "")})
    second = world.merge.head
    assert places() == [(None, 11, first), (30, None, second), (7, 8, first)]
    note = world.merge.note(int(str(changed["id"])))
    assert note is not None
    assert note.original_position is not None
    assert note.change_position is not None
    assert (note.original_position.refs, note.change_position.new_line) == (old, None)
    place = {"new_path": "new.py", "old_path": "new.py"}
    assert world.note(whole["id"])["position"] == world.position(position_type="file", **place)


def test_stale_shas_are_traced_to_the_newest_version(world: World) -> None:
    stale = world.position(new_line=10)
    world.project.push("fix", {"app.py": "top\n" + NEW})
    notes = world.post("/discussions", body="late", position=stale)["notes"]
    assert isinstance(notes, list)
    assert (notes[0]["position"]["new_line"], notes[0]["position"]["head_sha"]) == (11, world.merge.head)
    world.post("/draft_notes", note="late too", position=stale)
    world.post("/draft_notes/bulk_publish")
    assert [one.position.new_line for one in world.merge.all_notes() if one.position] == [11, 11]


# --- moving lines

LINES = st.lists(st.sampled_from("abcdefgh"), max_size=30)


@given(old=LINES, new=LINES)
def test_lines_are_followed_through_a_diff_both_ways(old: list[str], new: list[str]) -> None:
    text = "".join(list(difflib.unified_diff(lines(old), lines(new)))[2:])
    mapper = Mapper(FileChange("f", "f", "100644", "100644", "M", text))
    for number, line in enumerate(old, start=1):
        there = mapper.forward(number)
        assert there is None or (new[there - 1] == line and mapper.back(there) == number)
    gone = sum(mapper.forward(number) is None for number in range(1, len(old) + 1))
    come = sum(mapper.back(number) is None for number in range(1, len(new) + 1))
    assert (gone, come) == (text.count("\n-"), text.count("\n+"))


def lines(letters: list[str]) -> list[str]:
    return [f"{letter}\n" for letter in letters]
