"""What a restore is likely to need, by the keys alone: to be asked for while the epochs' starts still come.

Supposed is what nearly always is: each epoch goes on where its own log begins, in the one before it. Nothing relies
on it. A guess that is wrong costs requests; the plan is made of what the starts say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.errors import ReplicadError
from replicad.ownership.records import EpochStart
from replicad.plan.line import History, line_of_history
from replicad.plan.restore import plan_restore
from replicad.plan.target import IndexNeeded

if TYPE_CHECKING:
    from replicad.plan.listing import Listing, ManifestObject, SegmentObject
    from replicad.plan.target import Target
    from replicad.position import Epoch

_MOST_SEGMENTS = 1_000
"""Of a longer log, planning twice takes as long as what it saves."""


def likely(
    listing: Listing, target: Target, *, epoch: Epoch | None = None
) -> tuple[SegmentObject | ManifestObject, ...]:
    """Return objects that a plan for the target probably names, in the order in which a restore opens them.

    That is the manifest and the segments behind it, the newest first; or the one segment whose index decides what the
    target is. Empty when nothing can be said.

    Args:
        listing: what the store holds.
        target: what is asked for.
        epoch: the line of this epoch; None: the newest line.
    """
    if len(listing.segments) > _MOST_SEGMENTS:
        return ()
    try:
        line = line_of_history(History(label="", listing=listing, starts=_supposed(listing)), epoch=epoch)
        plan = plan_restore(line, target)
    except ReplicadError:  # the plan that is made of the starts will tell
        return ()
    if isinstance(plan, IndexNeeded):
        return (plan.segment.stored,)
    return (plan.manifest, *(part.stored.stored for part in reversed(plan.segments)))


def _supposed(listing: Listing) -> dict[Epoch, EpochStart]:
    """Return a start for each epoch that has one."""
    firsts: dict[Epoch, int] = {}
    lasts: dict[Epoch, int] = {}
    for part in listing.segments:
        key = part.key
        firsts[key.epoch] = min(firsts.get(key.epoch, key.first), key.first)
        lasts[key.epoch] = max(lasts.get(key.epoch, 0), key.last)
    for found in listing.manifests:
        lasts[found.key.epoch] = max(lasts.get(found.key.epoch, 0), found.key.txid)
    starts: dict[Epoch, EpochStart] = {}
    parent, last = 0, 0
    for epoch in sorted(listing.starts):
        after = firsts[epoch] - 1 if epoch in firsts else last
        starts[epoch] = EpochStart(
            database_id="",
            epoch=epoch,
            parent_epoch=parent,
            parent_txid=after,
            checksum="",
            pages=0,
            started_ms=0,
        )
        parent, last = epoch, max(after, lasts.get(epoch, 0))
    return starts
