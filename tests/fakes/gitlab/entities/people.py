"""People, groups and projects as the API shows them."""

from datetime import datetime
from typing import TYPE_CHECKING

from tests.fakes.gitlab.model import JSON, Group, Token, User

if TYPE_CHECKING:
    from tests.fakes.gitlab.project import Project
    from tests.fakes.gitlab.state import GitLab


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
        "created_by": user(gitlab, gitlab.admin),
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
        "archived": one.archived,
        "merge_requests_enabled": True,
        "issues_enabled": True,
        "creator_id": gitlab.admin.id,
        "permissions": {
            "project_access": {"access_level": level, "notification_level": 3} if level else None,
            "group_access": None,
        },
    }
