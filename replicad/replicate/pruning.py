"""One run of retention: look at the store's clock, list, plan, and delete what the plan lets go.

The store's clock is read from an object that was stored for that a moment ago: no header of an answer is needed, which
not every kind of store has. When it and this machine's differ by two hours, one of them is wrong, nobody knows which,
and every age is in doubt: nothing is deleted. Below that, the one that is behind counts.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from replicad.errors import ClockDiffers
from replicad.layout import PRESERVE, PROBES
from replicad.plan.inventory import kind_of
from replicad.plan.retention import plan_retention
from replicad.replicate.removal import BATCH_OBJECTS
from replicad.restore.inventory import read_inventory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from contextlib import AbstractAsyncContextManager

    from replicad.host.clock import Clock
    from replicad.host.threads import Threads
    from replicad.plan.inventory import Inventory
    from replicad.plan.policy import RetentionPolicy
    from replicad.plan.retention import RetentionPlan, Verdict
    from replicad.replicate.removal import Removal
    from replicad.store.protocol import ObjectStore

MOST_DIFFERENCE_SECONDS = 2 * 3600.0
_CLOCK_PROBE = f"{PROBES}clock"
_RESOLUTION_MS = 1000  # S3 says whole seconds


class SnapshotsAtRest(Protocol):
    """Keeps the owner's own snapshots off while chunks are deleted: see `Snapshots`."""

    @property
    def newest(self) -> object:
        """Another one once a snapshot was stored."""
        ...

    def in_use(self) -> AbstractSet[str]:
        """Return the keys of the chunks that the next snapshot may list without sending them again."""
        ...

    def at_rest(self) -> AbstractAsyncContextManager[None]:
        """Wait until no snapshot is under way, and let none begin."""
        ...


class NoSnapshots:
    """Where nobody takes any: the epoch has ended."""

    newest = None

    def in_use(self) -> AbstractSet[str]:
        """Return nothing."""
        return frozenset()

    @asynccontextmanager
    async def at_rest(self) -> AsyncIterator[None]:
        """Wait for nothing."""
        yield


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """How much is stored of one kind of object."""

    objects: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What was found in the store, and what retention makes of it."""

    inventory: Inventory
    plan: RetentionPlan
    weights: Mapping[str, Weight]  # by kind of object
    clock_difference_seconds: float | None  # the store's clock is ahead by so much; None: it was not looked at
    snapshots_then: object  # the newest snapshot of this process' own when this was found


class Pruning:
    """Retention of one database's objects.

    Args:
        store: the database's own part of the store.
        clock: this machine's.
        threads: where the plan is made.
        policy: what is promised.
        snapshots: whoever takes them.
    """

    def __init__(
        self, store: ObjectStore, clock: Clock, threads: Threads, policy: RetentionPolicy, snapshots: SnapshotsAtRest
    ) -> None:
        self._store = store
        self._clock = clock
        self._threads = threads
        self._policy = policy
        self._snapshots = snapshots

    async def examine(self, *, probe: bool) -> Examined:
        """List, and plan.

        Args:
            probe: whether to look at the store's clock, which takes storing an object.

        Raises:
            NoBackup: nothing was ever stored.
            ReplicadError: the store failed, or the history cannot be read.
        """
        newest = self._snapshots.newest
        before_ms = self._clock.now_ms()
        if probe:
            await self._store.put(_CLOCK_PROBE, b"clock")
        after_ms = self._clock.now_ms()
        inventory = await read_inventory(self._store, self._threads)
        difference_seconds = _difference_seconds(inventory, before_ms, after_ms) if probe else None
        if probe:
            await self._store.delete([_CLOCK_PROBE])
        now_ms = before_ms + round(min(0.0, difference_seconds or 0.0) * 1000)
        in_use = self._snapshots.in_use()
        plan = await self._threads.run(plan_retention, inventory, self._policy, now_ms=now_ms, in_use=in_use)
        return Examined(
            inventory=inventory,
            plan=plan,
            weights=await self._threads.run(_weigh, inventory),
            clock_difference_seconds=difference_seconds,
            snapshots_then=newest,
        )

    async def carry_out(self, examined: Examined, removal: Removal) -> bool:
        """Delete what the plan lets go; return False when it was overtaken, and has to be made anew.

        Raises:
            ClockDiffers: by two hours or more; nothing was deleted.
            ReplicadError: as `Removal.remove`.
        """
        difference_seconds = examined.clock_difference_seconds
        if difference_seconds is None or abs(difference_seconds) >= MOST_DIFFERENCE_SECONDS:
            raise ClockDiffers(store=self._store.url, difference=_in_words(difference_seconds))
        for stage in examined.plan.stages:
            for first in range(0, len(stage), BATCH_OBJECTS):
                batch = stage[first : first + BATCH_OBJECTS]
                if await self._marks() != {str(mark) for mark in examined.inventory.marks}:
                    return False
                if batch[0].kind != "chunk":
                    await removal.remove(batch)
                elif not await self._remove_chunks(batch, examined, removal):
                    return False
        return True

    async def _remove_chunks(self, batch: Sequence[Verdict], examined: Examined, removal: Removal) -> bool:
        """Delete chunks while no snapshot is under way.

        One that was sent since the listing is named by its content: it may stand under the key of one that is to be
        deleted. What the next snapshot may list is known here; of what one has listed by now, a new plan must know.
        """
        async with self._snapshots.at_rest():
            if self._snapshots.newest is not examined.snapshots_then:
                return False
            in_use = self._snapshots.in_use()
            await removal.remove([verdict for verdict in batch if verdict.key not in in_use])
        return True

    async def _marks(self) -> set[str]:
        """Return the marks there are now: one that was made behind the listing keeps what the plan may not know of."""
        return {found.key async for found in self._store.list(PRESERVE)}


def _difference_seconds(inventory: Inventory, before_ms: int, after_ms: int) -> float | None:
    """Return by how much the store's clock is ahead; 0 when that is less than the look took."""
    probe = inventory.rows.get(_CLOCK_PROBE)
    if probe is None:
        return None
    return (min(0, probe.modified_ms + _RESOLUTION_MS - before_ms) + max(0, probe.modified_ms - after_ms)) / 1000


def _weigh(inventory: Inventory) -> dict[str, Weight]:
    """Return how much of each kind is stored."""
    weights: dict[str, Weight] = {}
    for row in inventory.rows.values():
        kind = kind_of(row.key)
        before = weights.get(kind, Weight())
        weights[kind] = Weight(objects=before.objects + 1, size_bytes=before.size_bytes + row.size_bytes)
    return weights


def _in_words(difference_seconds: float | None) -> str:
    return "an unknown time" if difference_seconds is None else f"{abs(difference_seconds) / 3600:.1f} h"
