"""A merge request on the stand-in with a client for it: what the stand-in's own tests begin with."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import gitlab
import pytest
from gitlab.exceptions import GitlabError

from tests.fakes.gitlab import MAINTAINER, GitLab, MergeRequest, Project, User, serve

OLD = "".join(f"line {number}\n" for number in range(1, 41))
NEW = OLD.replace("line 10\n", "LINE 10\nand more\n").replace("line 30\n", "")

Data = dict[str, object]


@dataclass
class World:
    """One merge request that changes, adds, renames and deletes a file, and a client for it."""

    server: GitLab
    project: Project
    merge: MergeRequest
    alice: User
    client: gitlab.Gitlab

    @property
    def path(self) -> str:
        return f"/projects/{self.project.id}/merge_requests/{self.merge.iid}"

    def get(self, below: str = "", **query: object) -> Data:
        answer = self.client.http_get(self.path + below, query_data=query)
        assert isinstance(answer, dict)
        return answer

    def all(self, below: str) -> list[Data]:
        return list(self.client.http_list(self.path + below, iterator=True, per_page=100))

    def files(self, merge: MergeRequest | None = None, per_page: int = 100) -> dict[str, Data]:
        """The items of `/diffs` by their new paths."""
        path = f"/projects/{self.project.id}/merge_requests/{(merge or self.merge).iid}/diffs"
        items = self.client.http_list(path, iterator=True, per_page=per_page)
        return {str(item["new_path"]): dict(item) for item in items}

    def post(self, below: str, **data: object) -> Data:
        answer = self.client.http_post(self.path + below, post_data=data)
        return answer if isinstance(answer, dict) else {"status": answer.status_code}

    def position(self, **place: object) -> Data:
        refs = self.merge.refs.json()
        return {"position_type": "text", "old_path": "app.py", "new_path": "app.py", **refs, **place}

    def say(self, **place: object) -> Data:
        """Start a discussion on a line, with a `body` if that matters; the note."""
        body = place.pop("body", "hm")
        discussion = self.post("/discussions", body=body, position=self.position(**place))
        notes = discussion["notes"]
        assert isinstance(notes, list)
        note: Data = notes[0]
        return note

    def note(self, number: object) -> Data:
        return self.get(f"/notes/{number}")


@contextmanager
def made() -> Iterator[World]:
    with serve() as server:
        project = server.project("team/tools/shop", bot_level=MAINTAINER)
        alice = project.add_member("alice")
        moved = "".join(f"moved {number}\n" for number in range(20))
        project.push("main", {"app.py": OLD, "old/name.py": moved, "gone.py": "bye\n"})
        change: dict[str, str | None] = {"app.py": NEW, "new.py": "one\ntwo\n", "old/name.py": None, "gone.py": None}
        change |= {"new/name.py": moved.replace("moved 5\n", "MOVED 5\n")}
        project.push("fix", change, user=alice)
        merge = project.open_merge_request("fix", title="Mend it", author=alice)
        with gitlab.Gitlab(server.url, private_token=server.bot_token, timeout=5) as client:
            yield World(server, project, merge, alice, client)


def refused(error: pytest.ExceptionInfo[GitlabError]) -> tuple[int | None, str]:
    return error.value.response_code, str(error.value.error_message)
