"""How long history is kept, and which snapshots outlast the window. Pure.

`pitr_window` is about moments: each one within it can be restored. The `keep_*` rules are about snapshots, in the words
of restic and Borg (restic's "Removing snapshots according to a policy", `borg prune`): a rule looks at the snapshots
from the newest to the oldest and keeps the newest one of each hour, day, week, month or year that has any, as many as
it counts, or all that are no older than its interval. Each rule counts by itself, and what any of them keeps is kept.
As with both, a rule that has not found as many as it counts keeps the oldest one too, which so comes to stand for its
period. Unlike with both, calendars are UTC wherever this runs, so that two instances never count different days.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

DAY_SECONDS = 86_400.0

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS
_MONDAY = 3  # 1970-01-01 was a Thursday
_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MS = 253_402_300_799_999  # of the calendar: year 9999


class Keep(msgspec.Struct, frozen=True):
    """How many snapshots a rule keeps: a number, or those of an interval. At most one of the two is set."""

    count: int = 0
    within_seconds: float = 0.0

    @property
    def any(self) -> bool:
        """Whether the rule keeps anything."""
        return self.count > 0 or self.within_seconds > 0


NONE = Keep()


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPolicy:
    """What is promised, and for how long what is promised no more stays all the same."""

    pitr_window_seconds: float = 7 * DAY_SECONDS
    grace_seconds: float = DAY_SECONDS
    min_snapshots: int = 2  # the newest ones, with the log behind them, whatever their age
    keep: Mapping[str, Keep] = field(default_factory=dict)  # by rule: last, hourly, daily, weekly, monthly, yearly


def snapshots_kept(times_ms: Sequence[int], policy: RetentionPolicy, *, now_ms: int) -> dict[int, str]:
    """Return which snapshots the rules keep, by number, each with the name of a rule that does.

    An interval ends at the newest snapshot, as restic has it, and not now: a database that nobody writes to loses none.
    A snapshot from the future (a clock was wrong) does not move it.

    Args:
        times_ms: commit time of each snapshot, in the order of the history.
        policy: the rules.
        now_ms: the present.
    """
    kept: dict[int, str] = {}
    if not times_ms:
        return kept
    newest_ms = min(now_ms, max(times_ms))
    for name, period in _PERIODS.items():
        rule = policy.keep.get(name, NONE)
        if rule.any:
            for number in _kept_by(times_ms, rule, period, newest_ms):
                kept.setdefault(number, f"keep_{name}")
    return kept


def _kept_by(times_ms: Sequence[int], rule: Keep, period: Callable[[int], int] | None, newest_ms: int) -> Iterator[int]:
    found, last = 0, None
    for number in reversed(range(len(times_ms))):
        if rule.count and found == rule.count:
            return
        if rule.within_seconds and times_ms[number] <= newest_ms - rule.within_seconds * 1000:
            continue
        bucket = number if period is None else period(times_ms[number])
        if bucket != last or number == 0:
            found += 1
            yield number
        last = bucket


def _month(ms: int) -> int:
    day = _UNIX_EPOCH + timedelta(milliseconds=min(ms, _LAST_MS))
    return day.year * 12 + day.month


_PERIODS: dict[str, Callable[[int], int] | None] = {
    "last": None,
    "hourly": lambda ms: ms // _HOUR_MS,
    "daily": lambda ms: ms // _DAY_MS,
    "weekly": lambda ms: (ms // _DAY_MS + _MONDAY) // 7,
    "monthly": _month,
    "yearly": lambda ms: (_month(ms) - 1) // 12,
}

RULES = tuple(_PERIODS)
"""The names of the rules, without `keep_`."""
