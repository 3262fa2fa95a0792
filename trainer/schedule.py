"""When a round begins. Whether one is due is a pure decision; APScheduler is only the clock that asks."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from apscheduler.triggers.cron import CronTrigger

LOOK_BACK = timedelta(days=31)
"""A tick that was missed longer ago is not made up for."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator wants.

    Args:
        cron: five fields of a crontab, in the machine's time zone; None: no ticks.
        every_votes: so many new votes make a round due; None: votes make none due.
        window: the hours of the day in which a round may begin, `22-6`; None: any.
    """

    cron: str | None
    every_votes: int | None
    window: str | None


@dataclass(frozen=True, slots=True)
class DueRound:
    """A round that shall begin now.

    Args:
        id: two schedulers that see the same reason give the same one, so that one round comes of it.
        why: in words.
    """

    id: str
    why: str


def due(
    now: datetime,
    last: datetime | None,
    votes: int,
    rules: Rules,
    *,
    paused: bool,
    rebuild: str | None = None,
) -> DueRound | None:
    """Say whether a round is due.

    Ticks that were missed, because nothing ran or outside the window, make one round together.

    Args:
        now: with its zone.
        last: when the newest round began; None: there was none, and nothing before now counts as missed.
        votes: that came since then.
        rules: what the operator wants.
        paused: nothing begins by itself.
        rebuild: the serving adapter, where it has learnt from what was forgotten since.
    """
    if paused or not in_window(now, rules.window):
        return None
    if rebuild:
        return DueRound(f"rebuild {rebuild}", f"{rebuild} has learnt from what was forgotten since")
    since = last or now - timedelta(minutes=1)
    if rules.cron and (tick := last_tick(rules.cron, max(since, now - LOOK_BACK), now)):
        return DueRound(f"cron {tick.isoformat()}", f"the schedule {rules.cron!r} at {tick:%Y-%m-%d %H:%M}")
    if rules.every_votes and votes >= rules.every_votes:
        begun = last.isoformat() if last else "the beginning"
        return DueRound(f"votes since {begun}", f"{votes} new votes, and {rules.every_votes} make a round due")
    return None


def in_window(now: datetime, window: str | None) -> bool:
    """Whether a round may begin at this hour; a window may go over midnight."""
    if window is None:
        return True
    first, last = map(int, window.split("-"))
    return first <= now.hour < last if first < last else now.hour >= first or now.hour < last


def last_tick(cron: str, since: datetime, now: datetime) -> datetime | None:
    """The last tick after `since` and not after `now`."""
    ticks = list(_ticks(CronTrigger.from_crontab(cron, timezone=now.tzinfo), since, now))
    return ticks[-1] if ticks else None


def _ticks(trigger: CronTrigger, since: datetime, now: datetime) -> Iterator[datetime]:
    at = since
    while (tick := trigger.get_next_fire_time(None, at + timedelta(seconds=1))) is not None and tick <= now:
        yield tick
        at = tick
