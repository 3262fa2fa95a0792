"""Commits, files and statuses as the API shows them."""

import base64
import hashlib
from typing import TYPE_CHECKING

from tests.fakes.gitlab.entities.people import stamp, user
from tests.fakes.gitlab.model import JSON, Status
from tests.fakes.gitlab.repository import Commit

if TYPE_CHECKING:
    from tests.fakes.gitlab.project import Project
    from tests.fakes.gitlab.state import GitLab


def commit(one: "Project", made: Commit) -> JSON:
    return {
        "id": made.id,
        "short_id": made.id[:8],
        "created_at": made.committed,
        "parent_ids": list(made.parents),
        "title": made.title,
        "message": made.message,
        "author_name": made.author_name,
        "author_email": made.author_email,
        "authored_date": made.authored,
        "committer_name": made.committer_name,
        "committer_email": made.committer_email,
        "committed_date": made.committed,
        "trailers": {},
        "extended_trailers": {},
        "web_url": f"{one.web_url}/-/commit/{made.id}",
    }


def status(gitlab: "GitLab", one: Status) -> JSON:
    return {
        "id": one.id,
        "sha": one.sha,
        "ref": one.ref,
        "status": one.state,
        "name": one.name,
        "target_url": one.target_url,
        "description": one.description,
        "created_at": stamp(one.created_at),
        "started_at": None,
        "finished_at": stamp(one.created_at) if one.state in {"success", "failed", "canceled"} else None,
        "allow_failure": False,
        "coverage": one.coverage,
        "pipeline_id": 1,
        "author": user(gitlab, one.author),
    }


def file(path: str, ref: str, commit_id: str, blob: tuple[str, bytes]) -> JSON:
    return {
        "file_name": path.rpartition("/")[2],
        "file_path": path,
        "size": len(blob[1]),
        "encoding": "base64",
        "content_sha256": hashlib.sha256(blob[1]).hexdigest(),
        "ref": ref,
        "blob_id": blob[0],
        "commit_id": commit_id,
        "last_commit_id": commit_id,
        "execute_filemode": False,
        "content": base64.b64encode(blob[1]).decode(),
    }
