"""Merge requests: lists, their diffs and versions, edits and approvals."""

from tests.fakes.gitlab import diffs, entities
from tests.fakes.gitlab.errors import Refused, not_found
from tests.fakes.gitlab.merge import MergeRequest
from tests.fakes.gitlab.model import DEVELOPER, JSON, User
from tests.fakes.gitlab.routing import Answer, Call, pages, route

STATES = ("opened", "closed", "merged", "locked", "all")


def _listed(call: Call, merges: list[MergeRequest]) -> Answer:
    params = call.params
    state = params.one_of("state", STATES) or "all"
    found = [one for one in merges if state in {"all", one.state}]
    if after := params.time("updated_after"):
        found = [one for one in found if one.updated_at >= after]
    if before := params.time("updated_before"):
        found = [one for one in found if one.updated_at <= before]
    for name in ("source_branch", "target_branch"):
        if branch := params.text(name):
            found = [one for one in found if getattr(one, name) == branch]
    if numbers := params.integers("iids"):
        found = [one for one in found if one.iid in numbers]
    if author := params.integer("author_id"):
        found = [one for one in found if one.author.id == author]
    order = params.one_of("order_by", ("created_at", "updated_at")) or "created_at"
    down = (params.one_of("sort", ("asc", "desc")) or "desc") == "desc"
    found.sort(key=lambda one: (one.updated_at if order == "updated_at" else one.created_at, one.id), reverse=down)
    return pages(found, lambda one: entities.merge(call.gitlab, one))


@route("GET", "/projects/:id/merge_requests")
def merges(call: Call) -> Answer:
    return _listed(call, list(call.project().merges.values()))


@route("GET", "/merge_requests")
def all_merges(call: Call) -> Answer:
    call.sign_in()
    seen = [one for one in call.gitlab.projects.values() if call.may_see(one)]
    return _listed(call, [merge for one in seen for merge in one.merges.values()])


@route("POST", "/projects/:id/merge_requests")
def open_merge(call: Call) -> Answer:
    one = call.project(DEVELOPER)
    params = call.params
    source, target = params.need("source_branch"), params.need("target_branch")
    for branch in (source, target):
        if one.head(branch) is None:
            raise Refused(400, {"message": {"base": [f"Branch {branch} does not exist"]}})
    if any((each.source_branch, each.target_branch, each.state) == (source, target, "opened")
           for each in one.merges.values()):  # fmt: skip
        raise Refused(409, {"message": ["Another open merge request already exists for this source branch"]})
    made = one.open_merge_request(
        source,
        target,
        params.need("title"),
        description=params.text("description") or "",
        author=call.user,
        reviewers=tuple(_people(call, "reviewer_ids") or ()),
    )
    return Answer(201, entities.whole_merge(call.gitlab, made))


@route("GET", "/projects/:id/merge_requests/:iid")
def merge(call: Call) -> Answer:
    one = call.merge()
    body = entities.whole_merge(call.gitlab, one)
    one.unprepared -= not one.prepared
    return Answer(body=body)


def _people(call: Call, name: str) -> list[User] | None:
    numbers = call.params.integers(name)
    return None if numbers is None else [call.gitlab.users[one] for one in numbers if one in call.gitlab.users]


@route("PUT", "/projects/:id/merge_requests/:iid")
def edit(call: Call) -> Answer:
    one = call.merge(DEVELOPER)
    params = call.params
    target = params.text("target_branch")
    if target is not None and one.project.head(target) is None:
        raise Refused(400, {"message": {"base": [f"Branch {target} does not exist"]}})
    labels = params.texts("labels")
    if more := params.texts("add_labels"):
        labels = [*one.labels, *(label for label in more if label not in one.labels)]
    if less := params.texts("remove_labels"):
        labels = [label for label in labels or one.labels if label not in less]
    one.edit(
        call.user,
        title=params.text("title"),
        description=params.text("description"),
        target=target,
        labels=labels,
        assignees=_people(call, "assignee_ids"),
        reviewers=_people(call, "reviewer_ids"),
        chain=call.chain,
    )
    event = params.one_of("state_event", ("close", "reopen"))
    if event == "close" and one.state == "opened":
        one.close(call.user)
    elif event == "reopen" and one.state == "closed":
        one.reopen(call.user)
    return Answer(body=entities.whole_merge(call.gitlab, one))


@route("PUT", "/projects/:id/merge_requests/:iid/merge")
def accept(call: Call) -> Answer:
    one = call.merge(DEVELOPER)
    sha = call.params.text("sha")
    if sha is not None and sha != one.head:
        raise Refused(409, {"message": "SHA does not match HEAD of source branch"})
    if one.state != "opened" or one.draft:
        raise Refused(405, {"message": "405 Method Not Allowed"})
    one.merge(call.user)
    return Answer(body=entities.whole_merge(call.gitlab, one))


# --- the change


@route("GET", "/projects/:id/merge_requests/:iid/diffs")
def diff(call: Call) -> Answer:
    one = call.merge()
    limits, unified = call.gitlab.settings.limits, call.params.flag("unidiff") or False
    shown = one.changes[: limits.files] if one.prepared else ()
    return pages(shown, lambda change: diffs.item(change, limits, unified=unified))


@route("GET", "/projects/:id/merge_requests/:iid/changes")
def changes(call: Call) -> Answer:
    one = call.merge()
    limits = call.gitlab.settings.limits
    body: JSON = entities.whole_merge(call.gitlab, one) | {
        "changes": diffs.shown(one.changes, limits),
        "overflow": len(one.changes) > limits.files,
    }
    return Answer(body=body)


@route("GET", "/projects/:id/merge_requests/:iid/raw_diffs")
def raw_diffs(call: Call) -> Answer:
    one = call.merge()
    if not call.gitlab.settings.raw_diffs:
        raise Refused(404, {"error": "404 Not Found"})
    data = one.project.repository.raw_diff(one.refs.base, one.refs.head)
    return Answer(raw=data, kind="text/plain; charset=utf-8")


@route("GET", "/projects/:id/merge_requests/:iid/versions")
def versions(call: Call) -> Answer:
    one = call.merge()
    count = one.changes_count
    made = reversed(one.versions) if one.prepared else ()
    return pages(made, lambda each: entities.version(each, count) | {"merge_request_id": one.id})


@route("GET", "/projects/:id/merge_requests/:iid/versions/:version")
def version(call: Call) -> Answer:
    one = call.merge()
    for each in one.versions:
        if each.id == call.number("version"):
            repository, limits = one.project.repository, call.gitlab.settings.limits
            shown = repository.diff(each.refs.base, each.refs.head)
            body = entities.version(each, diffs.count(shown, limits)) | {"merge_request_id": one.id}
            commits = repository.commits(each.refs.base, each.refs.head)
            return Answer(
                body=body
                | {
                    "commits": [entities.commit(one.project, commit) for commit in reversed(commits)],
                    "diffs": diffs.shown(shown, limits),
                }
            )
    raise not_found()


@route("GET", "/projects/:id/merge_requests/:iid/commits")
def commits(call: Call) -> Answer:
    one = call.merge()
    made = one.project.repository.commits(one.refs.base, one.refs.head)
    return pages(reversed(made), lambda commit: entities.commit(one.project, commit))


# --- people on it


@route("GET", "/projects/:id/merge_requests/:iid/reviewers")
def reviewers(call: Call) -> Answer:
    one = call.merge()
    when = entities.stamp(one.created_at)
    return pages(
        one.reviewers.items(),
        lambda pair: {"user": entities.user(call.gitlab, pair[0]), "state": pair[1], "created_at": when},
    )


@route("GET", "/projects/:id/merge_requests/:iid/participants")
def participants(call: Call) -> Answer:
    one = call.merge()
    people = dict.fromkeys((one.author, *(note.author for note in one.all_notes())))
    return pages(people, lambda person: entities.user(call.gitlab, person))


def _approvals(call: Call, one: MergeRequest) -> JSON:
    given = one.outcome.approvals
    return {
        "id": one.id,
        "iid": one.iid,
        "project_id": one.project.id,
        "title": one.title,
        "description": one.description,
        "state": one.state,
        "created_at": entities.stamp(one.created_at),
        "updated_at": entities.stamp(one.updated_at),
        "merge_status": "can_be_merged",
        "approved": bool(given),
        "user_has_approved": call.user in given,
        "user_can_approve": call.user not in given,
        "approved_by": [{"user": entities.user(call.gitlab, person)} for person in given],
    }


@route("GET", "/projects/:id/merge_requests/:iid/approvals")
def approvals(call: Call) -> Answer:
    return Answer(body=_approvals(call, call.merge()))


@route("GET", "/projects/:id/merge_requests/:iid/approval_state")
def approval_state(call: Call) -> Answer:
    call.merge()
    return Answer(body={"approval_rules_overwritten": False, "rules": []})


@route("POST", "/projects/:id/merge_requests/:iid/approve")
def approve(call: Call) -> Answer:
    one = call.merge(DEVELOPER)
    sha = call.params.text("sha")
    if sha is not None and sha != one.head:
        raise Refused(409, {"message": f"SHA does not match HEAD of source branch: {one.head}"})
    if call.user in one.outcome.approvals:
        raise Refused(401, {"message": "401 Unauthorized"})
    one.approve(call.user, chain=call.chain)
    return Answer(201, _approvals(call, one))


@route("POST", "/projects/:id/merge_requests/:iid/unapprove")
def unapprove(call: Call) -> Answer:
    one = call.merge(DEVELOPER)
    if call.user not in one.outcome.approvals:
        raise not_found()
    one.unapprove(call.user, chain=call.chain)
    return Answer(201, _approvals(call, one))
