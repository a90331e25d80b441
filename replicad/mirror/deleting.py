"""Repeating deletions: never of anything at the second place whose replacement is not there, and whole.

What a roll-up replaced goes only where that roll-up stands. What retention let go is not needed by anything that the
first place keeps; but where some of that could not be copied, the second place may need what is older, and keeps it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.errors import Damaged, NewerFormat, ObjectMissing
from replicad.layout import CLAIMS, log_prefix, parse_claim, parse_segment
from replicad.mirror.sameness import other_history
from replicad.plan.line import LineSegment
from replicad.plan.listing import SegmentObject
from replicad.plan.rollup import covers
from replicad.restore.fetch import Fetch
from replicad.restore.rollups import open_rollup

if TYPE_CHECKING:
    from replicad.host.threads import Threads
    from replicad.mirror.side import Side

_DELETIONS = 1_000  # in one request


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
    key, folder = rollup.key, log_prefix(rollup.key.epoch)
    end = f"{folder}{key.last + 1:016x}"
    listed: list[SegmentObject] = []
    async for row in there.read.list(folder, after=f"{folder}{key.first:016x}"):
        if row.key >= end:
            break
        parsed = parse_segment(row.key)
        if parsed is not None:
            listed.append(SegmentObject(key=parsed, size_bytes=row.size_bytes))
    if rollup not in listed:
        return None
    try:  # it is what is left of them: never believed without a look
        await open_rollup(Fetch(there.read, threads, concurrency=1), LineSegment(stored=rollup, until=key.last))
    except (Damaged, NewerFormat, ObjectMissing):
        return None
    superfluous = [found.name for found in listed if covers(rollup, found)]
    for first in range(0, len(superfluous), _DELETIONS):
        await there.stored.delete(superfluous[first : first + _DELETIONS])
    return len(superfluous)
