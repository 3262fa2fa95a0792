"""The API's JSON of what the stand-in knows."""

from tests.fakes.gitlab.entities.code import commit, file, status
from tests.fakes.gitlab.entities.hooks import delivery, hook
from tests.fakes.gitlab.entities.people import group, member, project, stamp, token, user, whole_user
from tests.fakes.gitlab.entities.review import award, discussion, draft, merge, note, suggestion, version, whole_merge

__all__ = [
    "award",
    "commit",
    "delivery",
    "discussion",
    "draft",
    "file",
    "group",
    "hook",
    "member",
    "merge",
    "note",
    "project",
    "stamp",
    "status",
    "suggestion",
    "token",
    "user",
    "version",
    "whole_merge",
    "whole_user",
]
