"""Hang up the bot's webhooks: make what is missing, repair what is not right, wake what GitLab has switched off."""

from collections.abc import Sequence
from dataclasses import dataclass

from bot.forge import ForgeError, ForgeRefused, ForgeUnreachable, NotFound
from bot.gitlab import GitLabAdmin
from bot.gitlab.admin import Place
from bot.hook import Add, Change, Decision, Delivery, Hook, Keep, Wanted, decide, find, not_taken

_SAMPLES = ("merge_requests_events", "push_events")  # the bot takes a push, too, and does nothing about it
_NO_SAMPLE = "Ensure "  # how GitLab's answer begins where there is nothing to make a sample of


@dataclass(frozen=True, slots=True)
class Hung:
    """What came of it.

    Args:
        hook: the webhook's number, as far as it is known.
        words: for a person.
        changed: something was done.
        error: what went wrong, if something did.
    """

    hook: int | None
    words: str
    changed: bool = False
    error: ForgeError | None = None


class Hanger:
    """Sees to the webhooks of projects and groups.

    Args:
        admin: GitLab.
        dry: only say what would be done.
    """

    def __init__(self, admin: GitLabAdmin, *, dry: bool = False) -> None:
        self.admin = admin
        self.dry = dry

    def hang(self, place: Place, wanted: Wanted, known: int | None) -> Hung:
        """Make the webhook of a place what it shall be.

        Args:
            place: a project or a group.
            wanted: what it shall be.
            known: the number of the one that the bot made, if it did.

        Raises:
            ForgeUnreachable: GitLab does not answer, so that it makes no sense to go on.
        """
        try:
            decision = self.look(place, wanted, known)
            if not isinstance(decision, Add):
                known = decision.hook.id
            return _planned(decision) if self.dry else self._act(place, wanted, decision)
        except ForgeUnreachable:
            raise
        except ForgeError as error:
            return Hung(known, str(error), error=error)

    def look(self, place: Place, wanted: Wanted, known: int | None) -> Decision:
        """Say what is to be done.

        Raises:
            ForgeError: GitLab does not show its webhooks.
        """
        hook = find(self.admin.hooks(place), wanted.url, known)
        decision = decide(hook, wanted)
        if isinstance(decision, Keep):
            newest = deliveries(self.admin, place, decision.hook)
            return decide(hook, wanted, newest[0].status if newest else None)
        return decision

    def _act(self, place: Place, wanted: Wanted, decision: Decision) -> Hung:
        try:
            match decision:
                case Keep(hook):
                    words = f"already right (webhook {hook.id})"
                case Change(hook, faults):
                    hook = self.admin.change_hook(place, hook.id, wanted)
                    words = f"webhook {hook.id} repaired ({', '.join(faults)})"
                case Add():
                    hook = self.admin.add_hook(place, wanted)
                    words = f"webhook {hook.id} made"
        except ForgeRefused as error:
            raise ForgeRefused(f"{error}{_blocked(error)}", status=error.status, said=error.said) from None
        if left := not_taken(hook, wanted):
            raise ForgeRefused(f"webhook {hook.id}: {left}")
        if isinstance(decision, Change) and decision.test:
            self._wake(place, hook)
        return Hung(hook.id, words, changed=not isinstance(decision, Keep))

    def _wake(self, place: Place, hook: Hook) -> None:
        """Let GitLab send a sample, which switches a webhook on if the bot takes it."""
        for trigger in _SAMPLES:
            try:
                self.admin.test_hook(place, hook.id, trigger)
            except NotFound:  # GitLab before 16.11, and groups before 17.1
                break
            except ForgeRefused as error:
                if not error.said.startswith(_NO_SAMPLE):
                    raise ForgeRefused(
                        f"webhook {hook.id}: GitLab's test of it failed: {error.said}. Is the bot up, can GitLab reach "
                        f"{hook.url}, and does the bot have the same secret?"
                    ) from None
            else:
                return
        raise ForgeRefused(
            f"webhook {hook.id} cannot be tested from here: press Test at it in GitLab (Settings > Webhooks), which "
            "switches it on again"
        )


def deliveries(admin: GitLabAdmin, place: Place, hook: Hook) -> Sequence[Delivery]:
    """The newest deliveries of a webhook, newest first; none where GitLab (before 17.3) does not tell."""
    try:
        return admin.deliveries(place, hook.id)
    except NotFound:
        return ()


def _planned(decision: Decision) -> Hung:
    match decision:
        case Keep(hook):
            return Hung(hook.id, f"already right (webhook {hook.id})")
        case Change(hook, faults):
            return Hung(hook.id, f"webhook {hook.id} would be repaired ({', '.join(faults)})", changed=True)
        case Add():
            return Hung(None, "a webhook would be made", changed=True)


def _blocked(error: ForgeRefused) -> str:
    """The way out where GitLab does not send to such an address."""
    if "url" not in error.said.lower():
        return ""
    return (
        " If that address is in GitLab's own network, an administrator must allow it first: Admin > Settings > "
        "Network > Outbound requests."
    )
