"""The bodies of hooks, in the shape that GitLab documents."""

from datetime import datetime
from typing import TYPE_CHECKING

from tests.fakes.gitlab.model import JSON, Award, Note, User
from tests.fakes.gitlab.repository import Commit

if TYPE_CHECKING:
    from tests.fakes.gitlab.merge import MergeRequest
    from tests.fakes.gitlab.project import Project

STATES = {"opened": 1, "closed": 2, "merged": 3, "locked": 4}
MAX_COMMITS = 20


def stamp(when: datetime | None) -> str | None:
    return when.strftime("%Y-%m-%d %H:%M:%S UTC") if when else None


def change(previous: datetime, current: datetime) -> JSON:
    return {"previous": stamp(previous), "current": stamp(current)}


def state_change(previous: int, current: int) -> JSON:
    return {"state_id": {"previous": previous, "current": current}}


def user(person: User) -> JSON:
    return {
        "id": person.id,
        "name": person.name,
        "username": person.username,
        "avatar_url": None,
        "email": "[REDACTED]",
    }


def reviewers(merge: "MergeRequest", *, again: User | None = None) -> list[JSON]:
    return [user(one) | {"state": state, "re_requested": one is again} for one, state in merge.reviewers.items()]


def labels(merge: "MergeRequest") -> list[JSON]:
    when = stamp(merge.created_at)
    return [
        {
            "id": number,
            "title": title,
            "color": "#428bca",
            "project_id": merge.project.id,
            "created_at": when,
            "updated_at": when,
            "template": False,
            "description": None,
            "type": "ProjectLabel",
            "group_id": None,
        }
        for number, title in enumerate(merge.labels, start=1)
    ]


def project(one: "Project") -> JSON:
    host = one.gitlab.own_url.partition("://")[2].partition("/")[0].partition(":")[0]
    ssh, http = f"git@{host}:{one.path}.git", f"{one.web_url}.git"
    return {
        "id": one.id,
        "name": one.name,
        "description": one.description,
        "web_url": one.web_url,
        "avatar_url": None,
        "git_ssh_url": ssh,
        "git_http_url": http,
        "namespace": one.group.path.rpartition("/")[2],
        "visibility_level": 0 if one.private else 20,
        "path_with_namespace": one.path,
        "default_branch": one.default_branch,
        "ci_config_path": None,
        "homepage": one.web_url,
        "url": ssh,
        "ssh_url": ssh,
        "http_url": http,
    }


def _repository(one: "Project") -> JSON:
    known = project(one)
    return {key: known[key] for key in ("name", "url", "description", "homepage")}


def _commit(one: "Project", commit: Commit) -> JSON:
    return {
        "id": commit.id,
        "message": commit.message,
        "title": commit.title,
        "timestamp": commit.authored,
        "url": f"{one.web_url}/-/commit/{commit.id}",
        "author": {"name": commit.author_name, "email": "[REDACTED]"},
    }


def merge_attributes(merge: "MergeRequest") -> JSON:
    own = merge.project
    return {
        "assignee_id": merge.assignees[0].id if merge.assignees else None,
        "author_id": merge.author.id,
        "created_at": stamp(merge.created_at),
        "description": merge.description,
        "draft": merge.draft,
        "head_pipeline_id": None,
        "id": merge.id,
        "iid": merge.iid,
        "last_edited_at": None,
        "last_edited_by_id": None,
        "merge_commit_sha": merge.outcome.merge_commit,
        "merged_at": stamp(merge.outcome.merged_at),
        "merge_error": None,
        "merge_params": {"force_remove_source_branch": "1"},
        "merge_status": "can_be_merged",
        "merge_user_id": None,
        "merge_when_pipeline_succeeds": False,
        "milestone_id": None,
        "source_branch": merge.source_branch,
        "source_project_id": merge.source_project.id,
        "squash_commit_sha": None,
        "state_id": STATES[merge.state],
        "target_branch": merge.target_branch,
        "target_branch_protected": merge.target_branch == own.default_branch,
        "target_project_id": own.id,
        "time_estimate": 0,
        "title": merge.title,
        "updated_at": stamp(merge.updated_at),
        "updated_by_id": None,
        "prepared_at": stamp(merge.created_at) if merge.prepared else None,
        "assignee_ids": [one.id for one in merge.assignees],
        "blocking_discussions_resolved": True,
        "detailed_merge_status": "mergeable",
        "first_contribution": False,
        "human_time_change": None,
        "human_time_estimate": None,
        "human_total_time_spent": None,
        "labels": labels(merge),
        "last_commit": _commit(merge.source_project, own.repository.commit_of(merge.head)),
        "reviewer_ids": [one.id for one in merge.reviewers],
        "source": project(merge.source_project),
        "state": merge.state,
        "system": False,
        "target": project(own),
        "time_change": 0,
        "total_time_spent": 0,
        "url": merge.web_url,
        "work_in_progress": merge.draft,
        "approval_rules": [],
    }


def opened(merge: "MergeRequest") -> JSON:
    now = stamp(merge.created_at)
    return {
        "merge_status": {"previous": "preparing", "current": "checking"},
        "updated_at": {"previous": now, "current": now},
        "prepared_at": {"previous": None, "current": now},
    }


def merge_event(merge: "MergeRequest", action: str, changes: JSON, actor: User, oldrev: str | None) -> JSON:
    attributes = merge_attributes(merge) | {"action": action, "actioned_at": stamp(merge.updated_at)}
    if oldrev:
        attributes["oldrev"] = oldrev
    return {
        "object_kind": "merge_request",
        "event_type": "merge_request",
        "user": user(actor),
        "project": project(merge.project),
        "object_attributes": attributes,
        "labels": labels(merge),
        "changes": changes,
        "repository": _repository(merge.project),
        "assignees": [user(one) for one in merge.assignees],
        "reviewers": reviewers(merge),
    }


def _note(merge: "MergeRequest", note: Note) -> JSON:
    return {
        "attachment": None,
        "author_id": note.author.id,
        "change_position": note.change_position.json() if note.change_position else None,
        "commit_id": None,
        "created_at": stamp(note.created_at),
        "discussion_id": merge.discussion_of(note).id,
        "id": note.id,
        "internal": note.internal,
        "line_code": note.line_code,
        "note": note.body,
        "noteable_id": merge.id,
        "noteable_type": "MergeRequest",
        "original_position": note.original_position.json() if note.original_position else None,
        "position": note.position.json() if note.position else None,
        "project_id": merge.project.id,
        "resolved_at": stamp(note.resolved_at),
        "resolved_by_id": note.resolved_by.id if note.resolved_by else None,
        "resolved_by_push": None,
        "st_diff": None,
        "system": note.system,
        "type": note.kind,
        "updated_at": stamp(note.updated_at),
        "updated_by_id": note.updated_by.id if note.updated_by else None,
        "description": note.body,
        "url": f"{merge.web_url}#note_{note.id}",
    }


def note_event(merge: "MergeRequest", note: Note, action: str, actor: User) -> JSON:
    return {
        "object_kind": "note",
        "event_type": "confidential_note" if note.internal else "note",
        "user": user(actor),
        "project_id": merge.project.id,
        "project": project(merge.project),
        "object_attributes": _note(merge, note) | {"action": action},
        "repository": _repository(merge.project),
        "merge_request": merge_attributes(merge),
    }


def emoji_event(merge: "MergeRequest", note: Note, award: Award, action: str) -> JSON:
    """A note's emoji was given (`award`) or taken back (`revoke`)."""
    return {
        "object_kind": "emoji",
        "event_type": action,
        "user": user(award.user),
        "project_id": merge.project.id,
        "project": project(merge.project),
        "object_attributes": {
            "user_id": award.user.id,
            "created_at": stamp(award.created_at),
            "id": award.id,
            "name": award.name,
            "awardable_type": "Note",
            "awardable_id": note.id,
            "updated_at": stamp(award.created_at),
            "action": action,
            "awarded_on_url": f"{merge.web_url}#note_{note.id}",
        },
        "note": _note(merge, note),
        "merge_request": merge_attributes(merge),
    }


def pushed(one: "Project", branch: str, old: str, new: str, actor: User) -> JSON:
    repository = one.repository
    alive = set(new) != {"0"}
    commits: tuple[Commit, ...] = ()
    if alive:
        known = set(old) != {"0"}
        commits = repository.commits(old, new) if known else (repository.commit_of(new),)
    return {
        "object_kind": "push",
        "event_name": "push",
        "before": old,
        "after": new,
        "ref": f"refs/heads/{branch}",
        "ref_protected": branch == one.default_branch,
        "checkout_sha": new if alive else None,
        "message": None,
        "user_id": actor.id,
        "user_name": actor.name,
        "user_username": actor.username,
        "user_email": "",
        "user_avatar": None,
        "project_id": one.id,
        "project": project(one),
        "commits": [
            _commit(one, commit) | {"added": [], "modified": [], "removed": []} for commit in commits[-MAX_COMMITS:]
        ],
        "total_commits_count": len(commits),
        "push_options": {},
        "repository": _repository(one)
        | {key: project(one)[key] for key in ("git_http_url", "git_ssh_url", "visibility_level")},
    }


def token_expires(one: "Project", owner: User, name: str, expires_on: str) -> JSON:
    return {
        "object_kind": "access_token",
        "project": project(one),
        "object_attributes": {
            "user_id": owner.id,
            "created_at": stamp(one.created_at),
            "id": owner.id,
            "name": name,
            "expires_at": expires_on,
        },
        "event_name": "expiring_access_token",
    }
