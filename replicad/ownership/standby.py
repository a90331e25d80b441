"""Behind an epoch of one's own: is anybody there who goes on?

A newcomer may die between its claim and its first word. The instance before it then holds the newest state, and is
the only one that can go on at once. But it must not disturb a newcomer that is alive and takes its time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.layout import ack_key, start_key
from replicad.ownership.claim import Me, claim
from replicad.ownership.owner import Reclaimed
from replicad.ownership.requests import UNSETTLED, Claims, Exists, Get, Now, Pause, Steps
from replicad.position import Epoch

if TYPE_CHECKING:
    from replicad.ownership.timing import Timing


def stand_by(epoch: Epoch, me: Me, timing: Timing) -> Steps[Reclaimed | None]:
    """Wait until somebody begins an epoch behind `epoch`, which was ours; return None then: retired for good.

    To be run after `Retired` or `Fenced`, with the writers kept out. When whoever claimed gives no sign of life for
    `handover_timeout_seconds`, the next epoch is claimed.
    """
    seen: tuple[Epoch, bytes | None] | None = None
    heard_at: float = yield Now()
    while True:
        now: float = yield Now()
        try:
            highest: Epoch = yield Claims()
            if (yield from _is_continued(epoch, highest)):
                return None
            sign: bytes | None = yield Get(key=ack_key(Epoch(highest + 1)))
            if (highest, sign) != seen:
                seen, heard_at = (highest, sign), now
            elif now - heard_at >= timing.handover_timeout_seconds and (yield from claim(Epoch(highest + 1), me)):
                break
        except UNSETTLED:
            pass
        yield Pause(seconds=timing.newcomer_poll_seconds)
    claimed = Epoch(highest + 1)
    # Claim before looking: whoever begins an epoch in between finds our claim when it looks in its turn.
    restore = yield from _insist_on_knowing(epoch, claimed, timing)
    return Reclaimed(epoch=claimed, claim_id=me.id, restore=restore)


def _is_continued(epoch: Epoch, highest: Epoch) -> Steps[bool]:
    """Return whether an epoch behind `epoch` has a start."""
    for later in range(epoch + 1, highest + 1):
        if (yield Exists(key=start_key(Epoch(later)))):
            return True
    return False


def _insist_on_knowing(epoch: Epoch, claimed: Epoch, timing: Timing) -> Steps[bool]:
    while True:
        try:
            return (yield from _is_continued(epoch, claimed))
        except UNSETTLED:
            yield Pause(seconds=timing.newcomer_poll_seconds)
