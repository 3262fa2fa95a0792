"""The stand-in's answers against what nobody here wrote: recorded payloads, GitLab's OpenAPI file, npm's gitbeaker.

What none of the three covers is in `UNCOVERED`, and a test keeps that list true.
"""

import hashlib
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import gitlab
import jsonschema
import pytest
import requests
import yaml

from bot.settings import load
from tests.fakes.gitlab import MAINTAINER, OWNER, GitLab, serve
from tests.fakes.gitlab.positions import DiffLine, line_code
from tests.fakes.gitlab.routing import ROUTES
from tests.fakes.receiver import Receiver, receive

pytestmark = pytest.mark.world

SHARED = Path(__file__).parents[2] / "shared" / "gitlab"
shared = pytest.mark.shared
GITBEAKER = "@gitbeaker/rest@43.8.0"
SCRIPT = Path(__file__).parent / "fakes" / "gitlab" / "gitbeaker.mjs"

Data = dict[str, object]
Row = tuple[str, tuple[str | int, ...], str, str, str]
"""A recorded file, where in it the payload is, the method and route that answer so, and what is not in ours."""
OLD = "".join(f"line {number}\n" for number in range(1, 21))


def recorded(name: str, *keys: str | int) -> object:
    """A recorded payload, or a part of it. A raw HTTP answer's body where the file holds one."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"there is no {path}: the recorded payloads are not part of this repository")
    text = path.read_text(encoding="utf-8")
    if text.startswith("HTTP/"):
        text = re.split(r"\r?\n\r?\n", text, maxsplit=1)[1]
    value: object = json.loads(text)
    for key in keys:
        value = value[key]  # type: ignore[index]
    return value


# --- one scenario, with all that was said on the line


class Exchanges:
    """What a client sent and got, by the route's pattern, and the hooks that it caused."""

    def __init__(self, server: GitLab, receiver: Receiver) -> None:
        self.server, self.receiver = server, receiver
        self.all: list[requests.Response] = []
        self.answers: dict[tuple[str, str], object] = {}

    def take(self, response: requests.Response, **_: object) -> None:
        self.all.append(response)
        request = response.request
        path = urlsplit(str(request.url)).path.removeprefix("/api/v4")
        if response.ok and response.content and "json" in response.headers["Content-Type"]:
            for method, pattern, _function in ROUTES:
                if method == request.method and pattern.fullmatch(path):
                    self.answers[method, shown(pattern)] = response.json()

    def hook(self, kind: str, wanted: str = "") -> Data:
        """The first hook of a kind whose body holds a text."""
        self.server.settle()
        found = (one.json for one in self.receiver.got if one.json["object_kind"] == kind and wanted in str(one.json))
        return next(found)


def shown(pattern: re.Pattern[str]) -> str:
    return re.sub(r"\(\?P<(\w+)>[^)]*\)", r":\1", pattern.pattern).removesuffix("/?")


@pytest.fixture(scope="module")
def said() -> Iterator[Exchanges]:
    """Everything that the bot does, once, by python-gitlab, and what people do meanwhile."""
    with receive() as receiver, serve() as server:
        project = server.project("team/tools/shop", bot_level=MAINTAINER)
        alice = project.add_member("alice")
        project.push("main", {"app.py": OLD})
        project.push("fix", {"app.py": OLD.replace("line 9\n", "LINE 9\n"), "new.py": "new\n"}, user=alice)
        exchanges = Exchanges(server, receiver)
        with gitlab.Gitlab(server.url, private_token=server.bot_token) as client:
            client.session.hooks["response"].append(exchanges.take)
            events = ("push", "merge_requests", "note", "emoji", "resource_access_token")
            hooks = client.projects.get(project.path).hooks
            hook = hooks.create({"url": receiver.url} | {f"{event}_events": True for event in events})
            merge = project.open_merge_request("fix", title="Mend it", author=alice, draft=True)
            use(client, project.id, hook.id)
            merge.mark_ready()
            merge.edit(labels=["bug"], reviewers=[server.bot], assignees=[alice])
            merge.ask_again(server.bot)
            project.push("fix", {"app.py": OLD.replace("line 9\n", "LINE nine\n")}, user=alice)
            project.warn_of_expiry(server.tokens[server.bot_token])
            server.settle()
            client.http_get(f"/projects/{project.id}/merge_requests/1")
            client.http_get(f"/projects/{project.id}/merge_requests/1/reviewers")
            client.http_get(f"/projects/{project.id}/merge_requests")
        yield exchanges


def use(client: gitlab.Gitlab, project: int, hook: int) -> None:
    """What the bot needs of the API, with JSON bodies."""
    base = f"/projects/{project}"
    path = f"{base}/merge_requests/1"

    def post(below: str, **data: object) -> Data:
        answer = client.http_post(below, post_data=data)
        return cast("Data", answer) if isinstance(answer, dict) else {}

    client.auth()
    merge = cast("Data", client.http_get(path))
    client.http_get(f"{path}/raw_diffs", raw=True)
    for below in ("/diffs", "/changes", "/versions", "/commits", "/approvals", "/approval_state", "/participants"):
        client.http_get(path + below)
    version = cast("list[Data]", client.http_get(f"{path}/versions"))[0]
    client.http_get(f"{path}/versions/{version['id']}")
    refs = cast("Data", merge["diff_refs"])
    line = {"line_code": line_code("app.py", DiffLine(None, 9, 10, 9)), "type": "new", "new_line": 9}
    position = {"position_type": "text", "old_path": "app.py", "new_path": "app.py", "new_line": 9, **refs}
    position["line_range"] = {"start": line, "end": line}
    thread = post(f"{path}/discussions", body="```suggestion\nline nine\n```", position=position)
    post(f"{path}/discussions/{thread['id']}/notes", body="an answer")
    client.http_put(f"{path}/discussions/{thread['id']}", query_data={"resolved": True})
    client.http_get(f"{path}/discussions")
    draft = post(f"{path}/draft_notes", note="a draft", position=position, resolve_discussion=False)
    client.http_get(f"{path}/draft_notes")
    client.http_get(f"{path}/draft_notes/{draft['id']}")
    client.http_put(f"{path}/draft_notes/{draft['id']}", post_data={"note": "another", "position": position})
    post(f"{path}/draft_notes/bulk_publish")
    single = post(f"{path}/draft_notes", note="by itself")
    client.http_put(f"{path}/draft_notes/{single['id']}/publish")
    dropped = post(f"{path}/draft_notes", note="never")
    client.http_delete(f"{path}/draft_notes/{dropped['id']}")
    note = post(f"{path}/notes", body="a summary")
    client.http_put(f"{path}/notes/{note['id']}", post_data={"body": "a new summary"})
    client.http_get(f"{path}/notes")
    award = post(f"{path}/notes/{note['id']}/award_emoji", name="thumbsup")
    client.http_get(f"{path}/notes/{note['id']}/award_emoji")
    client.http_get(f"{path}/notes/{note['id']}/award_emoji/{award['id']}")
    client.http_delete(f"{path}/notes/{note['id']}/award_emoji/{award['id']}")
    post(f"{base}/statuses/{merge['sha']}", state="pending", name="apprentice", description="...", ref="fix")
    post(f"{path}/approve", sha=merge["sha"])
    post(f"{path}/unapprove")
    client.http_put(path, post_data={"description": "why"})
    for below in (f"/hooks/{hook}", "/hooks", "/members/all/2", "/repository/compare?from=main&to=fix", ""):
        client.http_get(base + below)
    client.http_put(f"{base}/hooks/{hook}", post_data={"note_events": True, "url": client_hook(client, base, hook)})
    post(f"{base}/hooks/{hook}/test/note_events")
    event = cast("list[Data]", client.http_get(f"{base}/hooks/{hook}/events"))[0]
    post(f"{base}/hooks/{hook}/events/{event['id']}/resend")
    client.http_get(f"{base}/repository/files/app.py?ref=main")
    client.http_get("/users?username=alice")


def client_hook(client: gitlab.Gitlab, base: str, hook: int) -> object:
    return cast("Data", client.http_get(f"{base}/hooks/{hook}"))["url"]


# --- recorded payloads


def kind(value: object) -> str:
    names = {dict: "object", list: "array", bool: "boolean", int: "number", float: "number", str: "string"}
    return names.get(type(value), "null")


def lacking(known: object, ours: object, at: str = "") -> Iterator[str]:
    """Where ours lacks a key of the recorded value, or has another type there. Null fits everything."""
    if known is None or ours is None:
        return
    if kind(known) != kind(ours):
        yield f"{at} is a {kind(ours)}, not a {kind(known)}"
    elif isinstance(known, dict) and isinstance(ours, dict):
        for key, value in known.items():
            if key in ours:
                yield from lacking(value, ours[key], f"{at}.{key}")
            else:
                yield f"{at}.{key}"
    elif isinstance(known, list) and isinstance(ours, list) and ours:
        for value in known:
            yield from lacking(value, ours[0], f"{at}[]")


MERGE = "/projects/:id/merge_requests/:iid"
APPROVERS = """.approvals_left .approvals_required .approver_groups .approvers .has_approval_rules .approval_rules_left
    .merge_request_approvers_available .multiple_approval_rules_available .require_password_to_approve
    .suggested_approvers"""
ANSWERS: list[Row] = [
    ("danger-js/getMergeRequestInfo.json", (0, "response"), "GET", MERGE, ""),
    ("glab/mergeableMr.json", (), "GET", MERGE, ""),
    ("atlantis/pipeline-success.json", (), "GET", MERGE, ""),
    ("atlantis/pipeline-work-in-progress.json", (), "GET", MERGE, ""),
    ("client-go/get_merge_request.json", (), "GET", MERGE, ""),
    # of a fork, and with details that were not asked for
    ("glab/mrList.json", (), "GET", "/projects/:id/merge_requests", """[].allow_collaboration [].label_details
        [].allow_maintainer_to_push [].author.created_at [].assignee.created_at [].assignees[].created_at"""),
    ("danger-ruby/merge_request_1_discussions_response.json", (), "GET", f"{MERGE}/discussions", ""),
    ("danger-js/getMergeRequestDiscussions.json", (0, "response"), "GET", f"{MERGE}/discussions", ""),
    # the newest note of ours stands alone and cannot be resolved
    ("danger-js/getMergeRequestNotes.json", (0, "response"), "GET", f"{MERGE}/notes", "[].resolved [].resolved_by"),
    ("danger-ruby/merge_request_1_comments_response.json", (), "GET", f"{MERGE}/notes", "[].upvote? [].downvote?"),
    ("danger-js/getMergeRequestDiffs.json", (0, "response"), "GET", f"{MERGE}/diffs", ""),
    ("client-go/list_merge_request_diff.json", (), "GET", f"{MERGE}/diffs", ""),
    ("client-go/list_draft_notes.json", (), "GET", f"{MERGE}/draft_notes", ""),
    ("danger-js/getMergeRequestCommits.json", (0, "response"), "GET", f"{MERGE}/commits", ""),
    # the paid editions' rules
    ("danger-js/getMergeRequestApprovals.json", (0, "response"), "GET", f"{MERGE}/approvals", APPROVERS),
    ("go-scm/award_emoji.json", (), "POST", f"{MERGE}/notes/:note/award_emoji", ""),
    ("danger-js/getCompareChanges.json", (0, "response"), "GET", "/projects/:id/repository/compare", ""),
    ("danger-js/getFileContents.json", (0, "response"), "GET", "/projects/:id/repository/files/:path", ""),
    # settings of a profile that are gone or of gitlab.com alone
    ("danger-js/getUser.json", (0, "response"), "GET", "/user", """.extra_shared_runners_minutes_limit .linkedin
        .shared_runners_minutes_limit .skype .twitter"""),
    ("atlantis/user-success.json", (), "GET", "/users", ""),
    ("atlantis/group-membership-success.json", (), "GET", "/projects/:id/members/all/:user", ""),
    ("go-scm/hooks.json", (), "GET", "/projects/:id/hooks", ""),
]  # fmt: skip


@shared
@pytest.mark.parametrize("row", ANSWERS, ids=lambda row: row[0])
def test_answers_have_the_keys_and_types_of_recorded_ones(said: Exchanges, row: Row) -> None:
    name, keys, method, route, less = row
    assert set(lacking(recorded(name, *keys), said.answers[method, route])) == set(less.split())


HOOKS = [
    ("gitlab-docs/merge-request-open-2026.json", "merge_request", "'action': 'open'", ""),
    ("atlantis/gitlab-merge-request-event-update-new-commit.json", "merge_request", "oldrev", ""),
    ("atlantis/gitlab-merge-request-event-mark-as-ready.json", "merge_request", "'draft': {'previous': True", ""),
    ("atlantis/gitlab-merge-request-event-update-reviewer.json", "merge_request", "'reviewers': {'previous'", ""),
    ("atlantis/gitlab-merge-request-event-update-labels.json", "merge_request", "'labels': {'previous'", ""),
    ("client-go/webhooks/merge_request.json", "merge_request", "'labels': {'previous'", """.changes.state_id
        .changes.updated_by_id"""),
    ("go-scm/webhooks/merge_request_comment_create.json", "note", "", """.merge_request.deleted_at
        .merge_request.merge_params.force_remove_source_branch!"""),
    ("atlantis/gitlab-merge-request-comment-event-subgroup.json", "note", "", """
        .merge_request.merge_params.force_remove_source_branch!"""),
    ("client-go/webhooks/note_merge_request.json", "note", "", ".merge_request.assignee .merge_request.position"),
    # the documented sample is of an issue's note
    ("gitlab-docs/emoji-event-award-note.json", "emoji", "award", ".issue"),
    ("client-go/webhooks/resource_access_token_project.json", "access_token", "", ""),
    ("client-go/webhooks/push.json", "push", "", ""),
]  # fmt: skip


@shared
@pytest.mark.parametrize(("name", "event", "wanted", "less"), HOOKS)
def test_hooks_have_the_keys_and_types_of_recorded_ones(
    said: Exchanges, name: str, event: str, wanted: str, less: str
) -> None:
    # `!`: a type that GitLab changed
    found = lacking(recorded(name), said.hook(event, wanted))
    assert {one.replace(" is a string, not a boolean", "!") for one in found} == set(less.split())


@shared
def test_a_second_request_for_a_review_has_the_documented_shape(said: Exchanges) -> None:
    documented = recorded("gitlab-docs/merge-request-partials.json", "re_request", "changes")
    changes = said.hook("merge_request", "'reviewers': [[")["changes"]
    assert not list(lacking(documented, changes))
    assert isinstance(changes, dict)
    before, after = changes["reviewers"]
    assert (before[0]["re_requested"], after[0]["re_requested"]) == (False, True)


@shared
def test_pages_have_the_headers_of_a_recorded_answer(said: Exchanges) -> None:
    path = SHARED / "danger-ruby" / "merge_request_1_discussions_response.json"
    if not path.exists():
        pytest.skip(f"there is no {path}")
    head = re.split(r"\r?\n\r?\n", path.read_text(encoding="utf-8"))[0]
    names = {line.split(":")[0] for line in head.splitlines()[1:] if line.startswith(("X-", "Link"))}
    answer = next(one for one in said.all if str(one.url).endswith("/discussions") and one.request.method == "GET")
    assert names - set(answer.headers) == {"X-Content-Type-Options", "X-Frame-Options", "X-Request-Id", "X-Runtime"}


@shared
def test_a_line_code_is_made_as_in_a_recorded_draft() -> None:
    draft = cast("Data", recorded("client-go/list_draft_notes.json", 1))
    path = cast("dict[str, str]", draft["position"])["new_path"]
    made = line_code(path, DiffLine(None, 9, 10, 9))
    assert made.split("_")[1:] == str(draft["line_code"]).split("_")[1:]
    assert made.startswith(hashlib.sha1(path.encode()).hexdigest())  # noqa: S324 -- GitLab's own choice


# --- GitLab's OpenAPI file


@pytest.fixture(scope="module")
def spec() -> Data:
    path = SHARED / "gitlab-openapi-bot-subset.yaml"
    if not path.exists():
        pytest.skip(f"there is no {path}: GitLab's OpenAPI file is not part of this repository")
    document: Data = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    return document


def closed(schema: object, definitions: Data) -> object:
    """A schema with its references put in, in which no object may have other properties."""
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return closed(definitions[str(schema["$ref"]).rpartition("/")[2]], definitions)
    made = {key: closed(value, definitions) for key, value in schema.items() if key not in {"example", "format"}}
    if isinstance(properties := made.get("properties"), dict):
        made["properties"] = {key: closed(value, definitions) for key, value in properties.items()}
        made["additionalProperties"] = False
    return made


def operation(spec: Data, method: str, path: str) -> Data | None:
    for template, operations in cast("dict[str, Data]", spec["paths"]).items():
        pattern = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template.removeprefix("/api/v4")))
        if re.fullmatch(pattern, path) and method.lower() in operations:
            return cast("Data", operations[method.lower()])
    return None


NEWER = {"signing_token_present", "token_present", "imported", "imported_from", "merge_after", "locked", "public_email"}
"""What answers hold since the file was made, or what it forgets."""
UNDECLARED = NEWER | {"url", "commands_changes", "collapsed", "too_large", "merge_request_id", "created_at", "web_url"}


SAID_200 = {"postApiV4ProjectsIdStatusesSha"}
"""Operations that the file lets answer 200, while GitLab's own code says nothing, which is 201 for a POST."""

PAID = {("GET", "approvals"), ("POST", "approve"), ("POST", "unapprove")}
"""Answers with more in them than the file says, as the recorded one of approvals shows."""


SAID_200 = {"postApiV4ProjectsIdStatusesSha"}
"""Operations that the file lets answer 200, while GitLab's own code says nothing, which is 201 for a POST."""

PAID = {("GET", "approvals"), ("POST", "approve"), ("POST", "unapprove")}
"""Answers with more in them than the file says, as the recorded one of approvals shows."""


@shared
def test_what_the_bot_sends_and_gets_is_in_gitlab_s_openapi_file(said: Exchanges, spec: Data) -> None:
    definitions = cast("Data", spec["definitions"])
    checked = set()
    for exchange in said.all:
        request = exchange.request
        path = urlsplit(str(request.url)).path.removeprefix("/api/v4")
        known = operation(spec, str(request.method), path)
        if known is None:
            continue
        checked.add((request.method, known["operationId"]))
        statuses = cast("Data", known["responses"])
        status = "200" if known["operationId"] in SAID_200 else str(exchange.status_code)
        assert status in statuses, f"{request.method} {path}: {exchange.status_code}"
        for parameter in cast("list[Data]", known["parameters"]):
            if parameter["in"] == "body":
                sent = json.loads(cast("bytes", request.body) or b"{}")
                for end in sent.get("position", {}).get("line_range", {}).values():
                    end["new_line"] = str(end["new_line"])  # the file says text, GitLab's own code says a number
                jsonschema.Draft4Validator(cast("Data", closed(parameter["schema"], definitions))).validate(sent)
        schema = cast("Data", statuses[status]).get("schema")
        if (
            schema
            and "json" in exchange.headers.get("Content-Type", "")
            and (str(request.method), path.rpartition("/")[2]) not in PAID
        ):
            names_are_known(exchange.json(), closed(schema, definitions))
    assert len(checked) >= 25


def names_are_known(answer: object, schema: object) -> None:
    """The answer's names are declared. Its types are not looked at: the file's are wrong."""
    assert isinstance(schema, dict)
    declared = cast("dict[str, Data]", schema.get("items", schema).get("properties", {}))
    for one in answer if isinstance(answer, list) else [answer]:
        assert isinstance(one, dict)
        assert set(one) <= set(declared) | UNDECLARED
        for key, value in one.items():
            if isinstance(value, dict) and declared.get(key, {}).get("properties"):
                names_are_known(value, declared[key])


# --- a client that nobody here wrote


@pytest.fixture(scope="module")
def gitbeaker() -> Path:
    """The folder with gitbeaker's modules, from the cache or from npm."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("npm and node are not installed: gitbeaker cannot drive the stand-in")
    cache = load({}).cache_dir
    folder = cache / f"npm-{hashlib.sha256(GITBEAKER.encode()).hexdigest()[:12]}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix="npm-", dir=cache))
        command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(made), GITBEAKER]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            shutil.rmtree(made)
            pytest.skip(f"npm could not install {GITBEAKER}: {done.stderr.strip()[-300:]}")
        made.rename(folder)
    return folder


@pytest.fixture(scope="module")
def driven(gitbeaker: Path) -> Iterator[tuple[dict[str, Data], GitLab, Receiver]]:
    with receive() as receiver, serve(root="/gitlab") as server:
        project = server.project("team/tools/shop", bot_level=MAINTAINER)
        server.group("team").members[server.bot.id] = OWNER
        project.push("main", {"src/app.py": "one\ntwo\nthree\n"})
        project.push("fix", {"src/app.py": "one\n2\nthree\n", "b.py": "b\n"})
        project.push("other", {"c.py": "c\n"})
        project.open_merge_request("fix", title="Mend it", reviewers=(server.bot,))
        arguments = [server.url, server.bot_token, project.path, "1", receiver.url]
        done = subprocess.run(
            ["node", str(SCRIPT), str(gitbeaker), *arguments], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        server.settle()
        yield json.loads(done.stdout), server, receiver


def test_gitbeaker_reads_people_projects_and_changes(driven: tuple[dict[str, Data], GitLab, Receiver]) -> None:
    got, server, _ = driven
    assert (got["me"]["username"], got["token"]["scopes"], got["version"]["version"]) == (
        "apprentice",
        ["api"],
        server.settings.version,
    )
    assert (got["project"]["path_with_namespace"], got["member"]["access_level"]) == ("team/tools/shop", OWNER)
    assert [one["new_path"] for one in cast("list[Data]", got["diffs"])] == ["b.py", "src/app.py"]
    assert len(cast("list[Data]", got["version1"]["diffs"])) == 2
    assert [one["new_path"] for one in cast("list[Data]", got["compare"]["diffs"])] == ["b.py", "src/app.py"]
    assert str(got["raw"]) == "one\n2\nthree\n"
    assert [one["id"] for one in cast("list[Data]", got["groupHooks"])] == [got["groupHook"]["id"]]
    assert [one["path_with_namespace"] for one in cast("list[Data]", got["inGroup"])] == ["team/tools/shop"]
    assert (got["second"]["state"], got["accepted"]["state"]) == ("opened", "merged")
    assert got["mergeBase"]["id"] == cast("Data", got["merge"]["diff_refs"])["base_sha"]


def test_gitbeaker_writes_notes_drafts_and_emoji(driven: tuple[dict[str, Data], GitLab, Receiver]) -> None:
    got, server, receiver = driven
    assert got["badLine"]["status"] == got["awardTwice"]["status"] - 4 == 400  # type: ignore[operator]
    assert "must be a valid line code" in str(got["badLine"]["message"])
    assert "already been taken" in str(got["awardTwice"]["message"])
    assert (got["draft"]["line_code"] is None, got["badDraft"]["line_code"]) == (False, None)
    assert (len(got["drafts"]), len(got["draftsLeft"])) == (2, 0)
    threads = [
        [note["body"] for note in cast("list[Data]", one["notes"])] for one in cast("list[Data]", got["discussions"])
    ]
    assert threads == [["On a line", "A better answer"], ["A draft"]]
    assert all(note["resolved"] for note in cast("list[Data]", got["resolved"]["notes"]))
    assert (len(got["awards"]), len(got["awardsLeft"])) == (1, 0)
    assert got["applied"]["applied"] is True
    assert got["staleApproval"]["status"] == 409
    assert server.find_project("team/tools/shop").merges[1].draft  # type: ignore[union-attr]
    assert {one.json["event_type"] for one in receiver.events("Emoji Hook")} == {"award", "revoke"}
    assert len(receiver.events("Note Hook")) == 7


# --- what is covered by none of them

UNCOVERED = """
    GET /version
    GET /projects/:id/merge_requests/:iid/discussions/:discussion/notes
    GET /projects/:id/merge_requests/:iid/discussions/:discussion/notes/:note
    HEAD /projects/:id/repository/files/:path/raw
    GET /groups/:group/hooks/:hook/events
    POST /groups/:group/hooks/:hook/events/:event/resend
    POST /groups/:group/hooks/:hook/test/:trigger
"""


@shared
def test_the_list_of_what_nothing_covers_is_true(
    said: Exchanges, spec: Data, driven: tuple[dict[str, Data], GitLab, Receiver]
) -> None:
    by_gitbeaker = [(one.method, one.path) for one in driven[1].requests]
    recorded_routes = {(method, route) for _, _, method, route, _ in ANSWERS}
    asked = [(str(one.request.method), urlsplit(str(one.url)).path.removeprefix("/api/v4")) for one in said.all]
    in_spec = [(method, path) for method, path in asked if operation(spec, method, path)]
    uncovered = set()
    for method, pattern, _ in ROUTES:
        used = any(verb == method and pattern.fullmatch(path) for verb, path in (*by_gitbeaker, *in_spec))
        if not used and (method, shown(pattern)) not in recorded_routes:
            uncovered.add(f"{method} {shown(pattern)}")
    assert uncovered == {line.strip() for line in UNCOVERED.strip().splitlines()}
