"""Making, listing and taking away preserve marks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from replicad.errors import Damaged, NewerFormat, ObjectMissing, ReplicadError
from replicad.layout import PRESERVE
from replicad.plan.inventory import marks_among
from replicad.plan.mark import Mark, decode_mark, encode_mark
from replicad.plan.target import AtTXID
from replicad.restore.planning import Planner
from replicad.restore.together import gather_bounded

if TYPE_CHECKING:
    from replicad.layout import MarkKey
    from replicad.plan.restore import RestorePlan
    from replicad.plan.target import Target
    from replicad.position import TXID
    from replicad.restore.fetch import Fetch
    from replicad.store.protocol import ObjectStore


async def resolve_state(store: ObjectStore, fetch: Fetch, target: Target) -> RestorePlan:
    """Return the way to a state of the newest line; raises what a restore of it would raise."""
    return await Planner(store, fetch, target, None).first()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Until when a state is to be preserved, and why."""

    until_ms: int
    now_ms: int
    reason: str


async def preserve(store: ObjectStore, fetch: Fetch, target: Target, wish: Wish) -> Mark:
    """Have retention leave a state alone until a date; return the mark.

    Raises:
        TargetOutsideWindow, HistoryGap, NoBackup: the state cannot be restored, or not any more.
        ReplicadError: the store failed.
    """
    plan = await resolve_state(store, fetch, target)
    mark = Mark(txid=plan.txid, epoch=plan.line.head, until_ms=wish.until_ms, made_ms=wish.now_ms, reason=wish.reason)
    await store.put(str(mark.key), encode_mark(mark))
    # A deletion that was planned before it was there does not know of it. The owner looks for marks before each step,
    # so whatever is there now stays.
    try:
        await resolve_state(store, fetch, AtTXID(plan.txid))
    except ReplicadError:
        await store.delete([str(mark.key)])
        raise
    return mark


async def list_marks(store: ObjectStore) -> list[MarkKey]:
    """Return the marks there are, by TXID; those that have expired too, until they are deleted."""
    return marks_among([found.key async for found in store.list(PRESERVE)])


async def read_marks(store: ObjectStore, fetch: Fetch) -> list[tuple[MarkKey, Mark | None]]:
    """Return the marks there are with their documents; None for one that cannot be read, which counts all the same."""
    keys = await list_marks(store)
    marks = await gather_bounded((partial(_read, fetch, str(key)) for key in keys), fetch.concurrency)
    return list(zip(keys, marks, strict=True))


async def remove_marks(store: ObjectStore, txid: TXID) -> list[MarkKey]:
    """Take away every mark of a transaction's state; return them."""
    found = [mark for mark in await list_marks(store) if mark.txid == txid]
    if found:
        await store.delete([str(mark) for mark in found])
    return found


async def _read(fetch: Fetch, key: str) -> Mark | None:
    try:
        return await fetch.proven(key, partial(decode_mark, what=key))
    except (Damaged, NewerFormat, ObjectMissing):
        return None
