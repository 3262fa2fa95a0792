"""The API's JSON of what the stand-in knows."""

import base64
import hashlib
from datetime import datetime
from typing import TYPE_CHECKING

from tests.fakes.gitlab import notes
from tests.fakes.gitlab.hooks import EVENTS, OTHER_EVENTS
from tests.fakes.gitlab.model import (
    JSON,
    Award,
    Delivery,
    Discussion,
    Draft,
    Group,
    Hook,
    Note,
    Status,
    Suggestion,
    Token,
    User,
    Version,
)
from tests.fakes.gitlab.repository import Commit

if TYPE_CHECKING:
    from tests.fakes.gitlab.merge import MergeRequest
    from tests.fakes.gitlab.project import Project
    from tests.fakes.gitlab.state import GitLab

VERSION_STATES = "collected"


def stamp(when: datetime | None) -> str | None:
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z") if when else None


def user(gitlab: "GitLab", person: User | None) -> JSON | None:
    if person is None:
        return None
    return {
        "id": person.id,
        "username": person.username,
        "public_email": "",
        "name": person.name,
        "state": person.state,
        "locked": False,
        "avatar_url": None,
        "web_url": f"{gitlab.own_url}/{person.username}",
    }


def whole_user(gitlab: "GitLab", person: User, *, own: bool) -> JSON:
    known: JSON = dict(user(gitlab, person) or {})
    known |= {"created_at": "2024-01-01T00:00:00.000Z", "bio": "", "location": "", "bot": person.bot}
    known |= {"organization": "", "job_title": "", "pronouns": None, "followers": 0, "following": 0}
    known |= {"work_information": None, "local_time": None, "is_followed": False, "website_url": ""}
    if own:
        known |= {
            "email": person.email,
            "commit_email": person.email,
            "last_sign_in_at": None,
            "confirmed_at": "2024-01-01T00:00:00.000Z",
            "last_activity_on": None,
            "theme_id": 1,
            "color_scheme_id": 1,
            "projects_limit": 0,
            "current_sign_in_at": None,
            "identities": [],
            "can_create_group": False,
            "can_create_project": False,
            "two_factor_enabled": False,
            "external": False,
            "private_profile": False,
            "is_admin": person.admin,
        }
    return known


def member(gitlab: "GitLab", person: User, level: int) -> JSON:
    known: JSON = dict(user(gitlab, person) or {})
    return known | {
        "access_level": level,
        "created_at": "2024-01-01T00:00:00.000Z",
        "expires_at": None,
        "membership_state": "active",
    }


def token(one: Token) -> JSON:
    return {
        "id": one.id,
        "name": one.name,
        "revoked": one.revoked,
        "created_at": stamp(one.created_at),
        "description": None,
        "scopes": list(one.scopes),
        "user_id": one.user.id,
        "last_used_at": None,
        "active": not one.revoked,
        "expires_at": one.expires_on.isoformat() if one.expires_on else None,
    }


def group(gitlab: "GitLab", one: Group) -> JSON:
    parent = gitlab.groups.get(one.path.rpartition("/")[0])
    name = one.path.rpartition("/")[2]
    return {
        "id": one.id,
        "web_url": f"{gitlab.own_url}/groups/{one.path}",
        "name": name,
        "path": name,
        "description": "",
        "visibility": "private",
        "avatar_url": None,
        "full_name": one.path.replace("/", " / "),
        "full_path": one.path,
        "parent_id": parent.id if parent else None,
        "created_at": "2024-01-01T00:00:00.000Z",
    }


def project(one: "Project", level: int) -> JSON:
    gitlab = one.gitlab
    names = one.path.replace("/", " / ")
    api = f"{gitlab.own_url}/api/v4/projects/{one.id}"
    parent = gitlab.groups.get(one.group.path.rpartition("/")[0])
    return {
        "id": one.id,
        "description": one.description,
        "name": one.name,
        "name_with_namespace": names,
        "path": one.name,
        "path_with_namespace": one.path,
        "created_at": stamp(one.created_at),
        "default_branch": one.default_branch,
        "tag_list": [],
        "topics": [],
        "ssh_url_to_repo": f"git@gitlab.invalid:{one.path}.git",
        "http_url_to_repo": f"{one.web_url}.git",
        "web_url": one.web_url,
        "readme_url": None,
        "avatar_url": None,
        "forks_count": 0,
        "star_count": 0,
        "last_activity_at": stamp(one.created_at),
        "visibility": "private" if one.private else "public",
        "namespace": {
            "id": one.group.id,
            "name": one.group.path.rpartition("/")[2],
            "path": one.group.path.rpartition("/")[2],
            "kind": "group",
            "full_path": one.group.path,
            "parent_id": parent.id if parent else None,
            "avatar_url": None,
            "web_url": f"{gitlab.own_url}/groups/{one.group.path}",
        },
        "_links": {
            "self": api,
            "merge_requests": f"{api}/merge_requests",
            "repo_branches": f"{api}/repository/branches",
            "labels": f"{api}/labels",
            "events": f"{api}/events",
            "members": f"{api}/members",
        },
        "empty_repo": not one.head(one.default_branch),
        "archived": False,
        "merge_requests_enabled": True,
        "issues_enabled": True,
        "creator_id": gitlab.admin.id,
        "permissions": {
            "project_access": {"access_level": level, "notification_level": 3} if level else None,
            "group_access": None,
        },
    }


def merge(gitlab: "GitLab", one: "MergeRequest") -> JSON:
    """As it stands in lists: without `diff_refs` and `changes_count`."""
    end = one.outcome
    people = [user(gitlab, person) for person in one.assignees]
    threads = [thread for thread in one.discussions if any(note.resolvable for note in thread.notes)]
    return {
        "id": one.id,
        "iid": one.iid,
        "project_id": one.project.id,
        "title": one.title,
        "description": one.description,
        "state": one.state,
        "created_at": stamp(one.created_at),
        "updated_at": stamp(one.updated_at),
        "merged_by": user(gitlab, end.merged_by),
        "merge_user": user(gitlab, end.merged_by),
        "merged_at": stamp(end.merged_at),
        "closed_by": user(gitlab, end.closed_by),
        "closed_at": stamp(end.closed_at),
        "target_branch": one.target_branch,
        "source_branch": one.source_branch,
        "user_notes_count": sum(not note.system for note in one.all_notes()),
        "upvotes": 0,
        "downvotes": 0,
        "author": user(gitlab, one.author),
        "assignees": people,
        "assignee": people[0] if people else None,
        "reviewers": [user(gitlab, person) for person in one.reviewers],
        "source_project_id": one.source_project.id,
        "target_project_id": one.project.id,
        "labels": sorted(one.labels),
        "draft": one.draft,
        "imported": False,
        "imported_from": "none",
        "work_in_progress": one.draft,
        "milestone": None,
        "merge_when_pipeline_succeeds": False,
        "merge_status": "can_be_merged" if one.prepared else "preparing",
        "detailed_merge_status": "mergeable" if one.prepared else "preparing",
        "merge_after": None,
        "sha": one.head,
        "merge_commit_sha": end.merge_commit,
        "squash_commit_sha": None,
        "discussion_locked": None,
        "should_remove_source_branch": None,
        "force_remove_source_branch": True,
        "prepared_at": stamp(one.created_at) if one.prepared else None,
        "reference": f"!{one.iid}",
        "references": {
            "short": f"!{one.iid}",
            "relative": f"!{one.iid}",
            "full": f"{one.project.path}!{one.iid}",
        },
        "web_url": one.web_url,
        "time_stats": {
            "time_estimate": 0,
            "total_time_spent": 0,
            "human_time_estimate": None,
            "human_total_time_spent": None,
        },
        "squash": False,
        "squash_on_merge": False,
        "task_completion_status": {"count": 0, "completed_count": 0},
        "has_conflicts": False,
        "blocking_discussions_resolved": all(thread.resolved for thread in threads),
    }


def whole_merge(gitlab: "GitLab", one: "MergeRequest") -> JSON:
    ready = one.prepared
    return merge(gitlab, one) | {
        "approvals_before_merge": None,
        "subscribed": False,
        "changes_count": one.changes_count if ready else None,
        "latest_build_started_at": None,
        "latest_build_finished_at": None,
        "first_deployed_to_production_at": None,
        "pipeline": None,
        "head_pipeline": None,
        "diff_refs": one.refs.json() if ready else None,
        "merge_error": None,
        "first_contribution": False,
        "user": {"can_merge": True},
    }


def version(one: Version, count: str) -> JSON:
    return {
        "id": one.id,
        "head_commit_sha": one.refs.head,
        "base_commit_sha": one.refs.base,
        "start_commit_sha": one.refs.start,
        "created_at": stamp(one.created_at),
        "merge_request_id": None,
        "state": VERSION_STATES,
        "real_size": count,
        "patch_id_sha": hashlib.sha1(one.refs.head.encode()).hexdigest(),  # noqa: S324 -- an id
    }


def suggestion(request: "MergeRequest", one: Suggestion) -> JSON:
    return {
        "id": one.id,
        "from_line": one.from_line,
        "to_line": one.to_line,
        "appliable": notes.appliable(request, one),
        "applied": one.applied,
        "from_content": one.from_content,
        "to_content": one.to_content,
    }


def note(request: "MergeRequest", one: Note) -> JSON:
    gitlab = request.gitlab
    known: JSON = {
        "id": one.id,
        "type": one.kind,
        "body": one.body,
        "author": user(gitlab, one.author),
        "created_at": stamp(one.created_at),
        "updated_at": stamp(one.updated_at),
        "system": one.system,
        "noteable_id": request.id,
        "noteable_type": "MergeRequest",
        "project_id": request.project.id,
    }
    if one.position:
        known |= {"commit_id": None, "position": one.position.json()}
    known["resolvable"] = one.resolvable
    if one.resolvable:
        known |= {
            "resolved": one.resolved_by is not None,
            "resolved_by": user(gitlab, one.resolved_by),
            "resolved_at": stamp(one.resolved_at),
        }
    if one.position:
        known["suggestions"] = [suggestion(request, each) for each in one.suggestions]
    return known | {
        "attachment": None,
        "confidential": one.internal,
        "internal": one.internal,
        "imported": False,
        "imported_from": "none",
        "noteable_iid": request.iid,
        "commands_changes": {},
    }


def discussion(request: "MergeRequest", one: Discussion) -> JSON:
    return {"id": one.id, "individual_note": one.individual, "notes": [note(request, each) for each in one.notes]}


def draft(request: "MergeRequest", one: Draft) -> JSON:
    return {
        "id": one.id,
        "author_id": one.author.id,
        "merge_request_id": request.id,
        "resolve_discussion": one.resolve,
        "discussion_id": one.discussion,
        "note": one.body,
        "commit_id": one.commit_id,
        "line_code": one.line_code,
        "position": one.position.json() if one.position else None,
    }


def award(gitlab: "GitLab", one: Award, awardable: int) -> JSON:
    return {
        "id": one.id,
        "name": one.name,
        "user": user(gitlab, one.user),
        "created_at": stamp(one.created_at),
        "updated_at": stamp(one.created_at),
        "awardable_id": awardable,
        "awardable_type": "Note",
        "url": None,
    }


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


def hook(gitlab: "GitLab", one: Hook) -> JSON:
    known: JSON = {
        "id": one.id,
        "url": one.url,
        "name": one.name,
        "description": one.description,
        "created_at": stamp(one.created_at),
        "enable_ssl_verification": one.ssl,
        "alert_status": gitlab.hooks.alert_status(one),
        "disabled_until": stamp(one.disabled_until),
        "url_variables": [],
        "push_events_branch_filter": None,
        "branch_filter_strategy": "wildcard",
        "custom_webhook_template": one.template,
        "custom_headers": [{"key": key} for key in one.headers],
    }
    known |= {event: one.events.get(event, False) for event in (*EVENTS, *OTHER_EVENTS)}
    known |= {"project_id": one.project} if one.project is not None else {"group_id": one.group}
    if gitlab.settings.signing_tokens:
        known |= {"token_present": one.token is not None, "signing_token_present": one.signing_token is not None}
    return known


def delivery(one: Delivery) -> JSON:
    return {
        "id": one.id,
        "url": one.url,
        "trigger": one.trigger,
        "request_headers": one.headers,
        "request_data": one.body.decode(errors="replace"),
        "response_headers": one.answer_headers,
        "response_body": one.answer,
        "execution_duration": one.seconds,
        "response_status": str(one.status) if one.status is not None else "internal error",
    }
