"""Discussions, notes, drafts, emoji and suggestions."""

from tests.fakes.gitlab import entities, notes
from tests.fakes.gitlab.errors import Refused, bad_request, invalid, not_found
from tests.fakes.gitlab.merge import MergeRequest
from tests.fakes.gitlab.model import Award, Discussion, Draft, Note
from tests.fakes.gitlab.positions import Position, Refs
from tests.fakes.gitlab.routing import Answer, Call, Params, pages, route

MERGE = "/projects/:id/merge_requests/:iid"
MAX_POSITION = 100 * 1024


def _position(call: Call) -> Position | None:
    """The position in the parameters; all three SHAs and its type must be there."""
    given = call.params.table("position")
    if given is None:
        return None
    kinds = ("text", "image", "file") if call.gitlab.settings.file_positions else ("text", "image")
    kind = given.one_of("position_type", kinds) or given.need("position_type")
    refs = Refs(given.need("base_sha"), given.need("start_sha"), given.need("head_sha"))
    paths = (given.text("old_path") or None, given.text("new_path") or None)
    lines = (given.integer("old_line"), given.integer("new_line")) if kind == "text" else (None, None)
    across = given.table("line_range")
    line_range = {side: _end(across, side) for side in ("start", "end") if side in across} if across else None
    if len(str(given.values)) > MAX_POSITION:
        raise bad_request('Note {:position=>["is too large"]}')
    return Position(refs, kind, *paths, *lines, line_range)


def _end(across: Params, side: str) -> object:
    end = across.table(side)
    assert end
    return {
        "line_code": end.text("line_code"),
        "type": end.text("type"),
        "old_line": end.integer("old_line"),
        "new_line": end.integer("new_line"),
    }


def _discussion(call: Call, merge: MergeRequest) -> Discussion:
    found = merge.discussion(call.path["discussion"])
    if found is None:
        raise not_found("Discussion")
    return found


def _note(call: Call, merge: MergeRequest) -> Note:
    found = merge.note(call.number("note"))
    if found is None:
        raise not_found()
    return found


def _written(merge: MergeRequest, written: notes.Written) -> Answer:
    if written.note is None:
        names = ", ".join(name for name, _ in written.actions)
        return Answer(202, {"commands_changes": {}, "summary": [f"Ran {names}."]})
    return Answer(201, entities.note(merge, written.note))


# --- discussions


@route("GET", f"{MERGE}/discussions")
def discussions(call: Call) -> Answer:
    merge = call.merge()
    return pages(merge.discussions, lambda one: entities.discussion(merge, one))


@route("GET", f"{MERGE}/discussions/:discussion")
def discussion(call: Call) -> Answer:
    merge = call.merge()
    return Answer(body=entities.discussion(merge, _discussion(call, merge)))


@route("POST", f"{MERGE}/discussions")
def start_discussion(call: Call) -> Answer:
    merge, user = call.merge(), call.user
    written = notes.write(merge, user, call.params.need("body"), position=_position(call), chain=call.chain)
    if written.note is None:
        return _written(merge, written)
    return Answer(201, entities.discussion(merge, merge.discussion_of(written.note)))


@route("PUT", f"{MERGE}/discussions/:discussion")
def resolve(call: Call) -> Answer:
    merge = call.merge()
    one = _discussion(call, merge)
    resolved = call.params.flag("resolved")
    if resolved is None:
        raise invalid("resolved", "is missing")
    notes.resolve(merge, one.notes, call.user, resolved=resolved)
    return Answer(body=entities.discussion(merge, one))


@route("GET", f"{MERGE}/discussions/:discussion/notes")
def discussion_notes(call: Call) -> Answer:
    merge = call.merge()
    return pages(_discussion(call, merge).notes, lambda one: entities.note(merge, one))


@route("POST", f"{MERGE}/discussions/:discussion/notes")
def reply(call: Call) -> Answer:
    merge = call.merge()
    one = _discussion(call, merge)
    if one.notes[0].system:
        raise bad_request("Discussion can not be replied to.")
    return _written(merge, notes.write(merge, call.user, call.params.need("body"), discussion=one, chain=call.chain))


# --- notes, on their own and in discussions


@route("GET", f"{MERGE}/notes")
def all_notes(call: Call) -> Answer:
    merge = call.merge()
    down = (call.params.one_of("sort", ("asc", "desc")) or "desc") == "desc"
    order = call.params.one_of("order_by", ("created_at", "updated_at")) or "created_at"
    found = sorted(merge.all_notes(), key=lambda one: (getattr(one, order), one.id), reverse=down)
    return pages(found, lambda one: entities.note(merge, one))


@route("POST", f"{MERGE}/notes")
def write(call: Call) -> Answer:
    merge = call.merge()
    params = call.params
    internal = params.flag("internal") or params.flag("confidential") or False
    written = notes.write(merge, call.user, params.need("body"), kind=None, internal=internal, chain=call.chain)
    return _written(merge, written)


@route("GET", f"{MERGE}/notes/:note")
@route("GET", f"{MERGE}/discussions/:discussion/notes/:note")
def note(call: Call) -> Answer:
    merge = call.merge()
    return Answer(body=entities.note(merge, _note(call, merge)))


@route("PUT", f"{MERGE}/notes/:note")
@route("PUT", f"{MERGE}/discussions/:discussion/notes/:note")
def change(call: Call) -> Answer:
    merge = call.merge()
    one = _note(call, merge)
    resolved = call.params.flag("resolved")
    if "discussion" in call.path and ("body" in call.params) == (resolved is not None):
        problem = (
            "are mutually exclusive" if resolved is not None else "are missing, exactly one parameter must be provided"
        )
        raise invalid("body, resolved", problem)
    if resolved is not None:
        if not one.resolvable:
            raise bad_request("Note is not resolvable")
        notes.resolve(merge, [one], call.user, resolved=resolved)
    else:
        notes.edit(merge, one, call.user, call.params.need("body"), chain=call.chain)
    return Answer(body=entities.note(merge, one))


@route("DELETE", f"{MERGE}/notes/:note")
@route("DELETE", f"{MERGE}/discussions/:discussion/notes/:note")
def delete(call: Call) -> Answer:
    merge = call.merge()
    notes.delete(merge, _note(call, merge), call.user)
    return Answer(204)


# --- drafts


def _drafts(call: Call, merge: MergeRequest) -> list[Draft]:
    return [one for one in merge.drafts if one.author is call.user]


def _draft(call: Call, merge: MergeRequest) -> Draft:
    for one in _drafts(call, merge):
        if one.id == call.number("draft"):
            return one
    raise not_found()


@route("GET", f"{MERGE}/draft_notes")
def drafts(call: Call) -> Answer:
    merge = call.merge()
    return pages(_drafts(call, merge), lambda one: entities.draft(merge, one))


@route("POST", f"{MERGE}/draft_notes")
def write_draft(call: Call) -> Answer:
    merge, params = call.merge(), call.params
    thread = params.text("in_reply_to_discussion_id")
    if thread is not None and merge.discussion(thread) is None:
        raise Refused(404, {"message": "404 Discussion Not Found"})
    made = notes.draft(
        merge,
        call.user,
        params.need("note"),
        position=_position(call),
        discussion=thread,
        resolve=params.flag("resolve_discussion") or False,
        commit_id=params.text("commit_id"),
    )
    return Answer(201, entities.draft(merge, made))


@route("POST", f"{MERGE}/draft_notes/bulk_publish")
def bulk_publish(call: Call) -> Answer:
    merge = call.merge()
    notes.publish(merge, call.user, _drafts(call, merge), chain=call.chain)
    return Answer(204)


@route("GET", f"{MERGE}/draft_notes/:draft")
def draft(call: Call) -> Answer:
    merge = call.merge()
    return Answer(body=entities.draft(merge, _draft(call, merge)))


@route("PUT", f"{MERGE}/draft_notes/:draft")
def change_draft(call: Call) -> Answer:
    """Change a draft; its position is gone if it is not sent again."""
    merge = call.merge()
    one = _draft(call, merge)
    if not call.params.text("note"):
        raise bad_request("Missing params to modify")
    one.body = call.params.need("note")
    notes.place(merge, one, _position(call))
    return Answer(body=entities.draft(merge, one))


@route("DELETE", f"{MERGE}/draft_notes/:draft")
def delete_draft(call: Call) -> Answer:
    merge = call.merge()
    merge.drafts.remove(_draft(call, merge))
    return Answer(204)


@route("PUT", f"{MERGE}/draft_notes/:draft/publish")
def publish_draft(call: Call) -> Answer:
    merge = call.merge()
    notes.publish(merge, call.user, [_draft(call, merge)], chain=call.chain)
    return Answer(204)


# --- emoji


def _award(call: Call, one: Note) -> Award:
    for given in one.awards:
        if given.id == call.number("award"):
            return given
    raise not_found()


@route("GET", f"{MERGE}/notes/:note/award_emoji")
def awards(call: Call) -> Answer:
    one = _note(call, call.merge())
    return pages(one.awards, lambda given: entities.award(call.gitlab, given, one.id))


@route("POST", f"{MERGE}/notes/:note/award_emoji")
def give_award(call: Call) -> Answer:
    merge = call.merge()
    one = _note(call, merge)
    if one.system:
        raise not_found("Award Emoji")
    given = notes.award(merge, one, call.user, call.params.need("name"), chain=call.chain)
    return Answer(201, entities.award(call.gitlab, given, one.id))


@route("GET", f"{MERGE}/notes/:note/award_emoji/:award")
def award(call: Call) -> Answer:
    one = _note(call, call.merge())
    return Answer(body=entities.award(call.gitlab, _award(call, one), one.id))


@route("DELETE", f"{MERGE}/notes/:note/award_emoji/:award")
def revoke_award(call: Call) -> Answer:
    merge = call.merge()
    one = _note(call, merge)
    given = _award(call, one)
    if given.user is not call.user and not call.user.admin:
        raise Refused(401, {"message": "401 Unauthorized"})
    notes.revoke(merge, one, given, chain=call.chain)
    return Answer(204)


# --- suggestions


@route("PUT", "/suggestions/:suggestion/apply")
def apply(call: Call) -> Answer:
    number = call.number("suggestion")
    for project in call.gitlab.projects.values():
        if not call.may_see(project):
            continue
        for merge in project.merges.values():
            for one in merge.all_notes():
                for suggestion in one.suggestions:
                    if suggestion.id == number:
                        notes.apply(merge, suggestion, call.user, call.params.text("commit_message"))
                        return Answer(body=entities.suggestion(merge, suggestion))
    raise not_found("Suggestion")
