"""Which of the faults that were found are believed: those that are still there when they are looked at once more.

The history is read anew for it. A roll-up, a retention or a snapshot that went on meanwhile has changed what is needed,
and what nothing needs any more is not missed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.layout import ObjectKind
from replicad.restore.verification.faults import Faults
from replicad.restore.verification.newest import check
from replicad.restore.verification.request import Fault

if TYPE_CHECKING:
    from replicad.restore.fetch import Fetch
    from replicad.restore.verification.faults import RawFault
    from replicad.restore.verification.inventory import Inventory
    from replicad.restore.verification.listing import Lister, Look


async def believe(
    lister: Lister, inventory: Inventory, fetch: Fetch, before: Look, found: Faults
) -> tuple[Look, Faults]:
    """Return what the listing tells now, and the faults that are still there.

    Args:
        lister: looks at the listing.
        inventory: what it fills.
        fetch: reads bodies.
        before: what the listing told when the faults were found.
        found: the faults.

    Raises:
        ReplicadError: the store failed.
    """
    suspects = {key for key, fault in found.by_key.items() if fault.kind is ObjectKind.CHUNK}
    look = await lister.look(suspects)
    line = look.line or before.line
    believed = Faults()
    for key, fault in found.by_key.items():
        again = look.faults.by_key.get(key)
        if line is None:
            still: RawFault | None = again
        elif again is not None and (again.fault is Fault.MISSING or again.gap is not None):
            still = again
        elif fault.gap is not None or (fault.kind is ObjectKind.CLAIM and fault.fault is Fault.MISSING):
            still = None
        else:
            listed = await fetch.threads.run(inventory.sizes, [key])
            still = await _look_again(fetch, fault, listed.get(key), line.database_id)
        if still is not None:
            believed.add(still)
    believed.left_out = found.left_out
    if found.left_out:
        believed.unusable |= found.unusable
    return look, believed


async def _look_again(fetch: Fetch, fault: RawFault, listed_bytes: int | None, database_id: str) -> RawFault | None:
    if listed_bytes is None:  # deleted meanwhile; whether it is missed the listing has told
        return None
    return await check(fetch, fault.key, listed_bytes, database_id) or (fault if fault.whole else None)
