"""Merge requests and what is written on them, as the API shows it."""

import hashlib
from typing import TYPE_CHECKING

from tests.fakes.gitlab import notes
from tests.fakes.gitlab.entities.people import stamp, user
from tests.fakes.gitlab.model import JSON, Award, Discussion, Draft, Note, Suggestion, Version

if TYPE_CHECKING:
    from tests.fakes.gitlab.merge import MergeRequest
    from tests.fakes.gitlab.state import GitLab


def merge(gitlab: "GitLab", one: "MergeRequest") -> JSON:
    """As it stands in lists: without `diff_refs` and `changes_count`."""
    end = one.outcome
    people = [user(gitlab, person) for person in one.assignees]
    forked: JSON = {"allow_collaboration": True, "allow_maintainer_to_push": True}
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
    } | (forked if one.source_project is not one.project else {})


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
        "state": "collected",
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
