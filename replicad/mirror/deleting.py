"""Repeating deletions: never of anything at the second place whose replacement is not there, and whole.

What a roll-up replaced goes only where that roll-up stands. What retention let go is not needed by anything that the
first place keeps; but where some of that could not be copied, the second place may need what is older, and keeps it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.errors import Damaged, NewerFormat, ObjectMissing
from replicad.layout import CLAIMS, log_begin, parse_claim
from replicad.mirror.sameness import other_history
from replicad.plan.line import LineSegment
from replicad.plan.listing import read_listing
from replicad.plan.rollup import covers
from replicad.restore.fetch import Fetch
from replicad.restore.rollups import list_log, open_rollup

if TYPE_CHECKING:
    from replicad.host.threads import Threads
    from replicad.mirror.side import Side
    from replicad.plan.listing import SegmentObject


async def refuse_if_gone_on(source: Side, there: Side) -> None:
    """Raise when somebody else has begun to work at the second place: what was planned here says nothing of that.

    Raises:
        OtherHistory: somebody has.
        ReplicadError: a store failed.
    """
    newest = max([parse_claim(found.key) or 0 async for found in source.stored.list(CLAIMS)], default=0)
    async for found in there.stored.list(CLAIMS):
        if (parse_claim(found.key) or 0) > newest:
            raise other_history(source, there, f"it has gone on by itself: it has {found.key}")


async def delete_replaced(there: Side, rollup: SegmentObject, threads: Threads) -> int | None:
    """Delete what a roll-up holds, if it stands there and can be read; return how many objects, None if it does not.

    Raises:
        ReplicadError: the store failed.
    """
    key = rollup.key
    rows = list_log(there.read, key.epoch, after=log_begin(key.epoch, key.first), last=key.last)
    listed = read_listing([(row.key, row.size_bytes) async for row in rows]).segments
    if rollup not in listed:
        return None
    try:  # it is what is left of them: never believed without a look
        await open_rollup(Fetch(there.read, threads, concurrency=1), LineSegment(stored=rollup, until=key.last))
    except (Damaged, NewerFormat, ObjectMissing):
        return None
    superfluous = [found.name for found in listed if covers(rollup, found)]
    await there.stored.delete(superfluous)
    return len(superfluous)
