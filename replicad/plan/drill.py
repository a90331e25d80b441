"""When to drill, and when what a drill found calls for a fresh snapshot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

FIRST_SECONDS = 3600.0
"""The longest wait for the first drill, and for another try at one that could not be run: where the disk does not
outlive a deploy nothing is known of earlier ones, and a process may never become as old as the interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LastDrill:
    """What is known of the last one."""

    at_ms: int  # when it ended (Unix ms)
    ran: bool  # it came to a result; False: there was no room, or no answer from the store


def due_in_seconds(last: LastDrill | None, *, interval_seconds: float, now_ms: int) -> float:
    """Return how long to wait for the next drill, from 0 to the interval, whatever the clock does."""
    if last is None:
        return min(interval_seconds, FIRST_SECONDS)
    wait_seconds = interval_seconds if last.ran else min(interval_seconds, FIRST_SECONDS)
    since_seconds = max(0.0, (now_ms - last.at_ms) / 1000)
    return max(0.0, wait_seconds - since_seconds)


def needs_snapshot(*, restored: bool, faulty: AbstractSet[str], known: AbstractSet[str]) -> bool:
    """Return whether a fresh snapshot has to be taken.

    What was found before, and is behind a snapshot that was taken because of it, is not healed by yet another one.

    Args:
        restored: whether the newest state could be restored.
        faulty: the keys of objects that are missing or damaged.
        known: those that were found by an earlier drill, and are still so after a fresh snapshot.
    """
    return not restored or bool(faulty - known)
