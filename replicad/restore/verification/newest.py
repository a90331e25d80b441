"""The objects that a restore of the newest state needs, checked one by one: all that is wrong, not only the first."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from replicad.errors import HistoryGap, TargetOutsideWindow
from replicad.layout import ObjectKind, kind_of
from replicad.plan.restore import RestorePlan, plan_restore
from replicad.plan.target import Latest
from replicad.restore.planning import MAX_PLANS
from replicad.restore.together import gather_bounded
from replicad.restore.verification.faults import OF_ONE_OBJECT, Faults, RawFault, fault_of
from replicad.restore.verify_object import verify_object
from replicad.snapshot import decode_manifest

if TYPE_CHECKING:
    from replicad.plan.line import Line
    from replicad.restore.fetch import Fetch

_BATCH = 64


async def check_newest(fetch: Fetch, line: Line) -> tuple[str | None, Faults]:
    """Check the way to the newest state, and where it is broken the next one, until one is sound or none is left.

    Returns:
        The snapshot of the first of them, None when the listing has a gap there; and all that is wrong.
    """
    faults, first = Faults(), None
    without: set[str] = set()
    for _ in range(MAX_PLANS):
        try:
            plan = plan_restore(line, Latest(), without=without)
        except (HistoryGap, TargetOutsideWindow):
            break
        if not isinstance(plan, RestorePlan):
            break
        first = first or plan.manifest.name
        found = await _check_plan(fetch, plan)
        if not found:
            break
        faults.merge(found)
        without |= found.unusable
        if any(fault.kind is ObjectKind.CHUNK for fault in found.by_key.values()):
            without.add(plan.manifest.name)
    return first, faults


async def _check_plan(fetch: Fetch, plan: RestorePlan) -> Faults:
    name, faults = plan.manifest.name, Faults()
    objects = {part.name: part.stored.stored.size_bytes for part in plan.segments}
    objects[name] = plan.manifest.size_bytes
    try:
        manifest = decode_manifest(await fetch.read(name), what=name)
    except OF_ONE_OBJECT:  # found again, with the others
        pass
    else:
        objects |= {chunk.key: chunk.stored_bytes for chunk in manifest.chunks}
    waiting = iter(objects.items())
    while batch := list(islice(waiting, _BATCH)):
        checks = (partial(check, fetch, key, size_bytes, plan.line.database_id) for key, size_bytes in batch)
        for fault in await gather_bounded(checks, fetch.concurrency):
            if fault is not None:
                faults.add(fault)
    return faults


async def check(fetch: Fetch, key: str, size_bytes: int, database_id: str) -> RawFault | None:
    """Return what is wrong with one object, None when it is sound."""
    try:
        await verify_object(fetch, key, size_bytes, database_id=database_id)
    except OF_ONE_OBJECT as error:
        return fault_of(key, kind_of(key), error)
    return None
