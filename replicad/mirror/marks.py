"""Preserve marks at a second place: the same as at the first, also when somebody else than the owner made or took them.

They name what is to be left alone by whoever deletes. One that is gone protects nothing at the first place any more,
and what it protected goes at both: so it goes too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.errors import ObjectMissing
from replicad.layout import PRESERVE
from replicad.plan.copying import is_mark

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicad.mirror.sending import Sender
    from replicad.mirror.side import Side


async def align_marks(source: Side, there: Side, sender: Sender, *, may_delete: bool) -> None:
    """Copy the marks that are missing at the second place, and delete there those that are no more.

    Raises:
        Damaged: one cannot be read; it was not copied.
        ReplicadError: a store failed.
    """
    wanted, found = await _marks(source), await _marks(there)
    for key, size_bytes in wanted.items():
        if found.get(key) != size_bytes:
            try:
                await sender.send(key, size_bytes)
            except ObjectMissing:  # taken away since
                continue
    gone = sorted(found.keys() - wanted.keys())
    if gone and may_delete:
        await there.stored.delete(gone)


async def _marks(side: Side) -> Mapping[str, int]:
    return {row.key: row.size_bytes async for row in side.stored.list(PRESERVE) if is_mark(row.key)}
