"""Reading bodies: every object in the order of the keys, as far as the budget goes, from where the last run stopped."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from replicad.errors import Damaged
from replicad.layout import kind_of
from replicad.restore.budget import MemoryBudget
from replicad.restore.segments import WHOLE_BYTES
from replicad.restore.together import task_group
from replicad.restore.verification.cursor import Cursor
from replicad.restore.verification.faults import OF_ONE_OBJECT, Faults, RawFault, fault_of
from replicad.restore.verification.succession import Succession
from replicad.restore.verify_object import UNREAD, Verified, verify_object

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator

    from replicad.host.clock import Clock
    from replicad.restore.fetch import Fetch
    from replicad.restore.progress import Progress
    from replicad.restore.verification.inventory import Inventory
    from replicad.restore.verification.listing import Look
    from replicad.restore.verification.request import Budget

_ROWS = 500
_EXPANDED = 3  # what an object takes in memory beside what is stored, about


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which bodies of a history are read."""

    look: Look
    database_id: str
    budget: Budget
    cursor: Cursor | None


class Bodies:
    """One run over the bodies of a database."""

    def __init__(self, fetch: Fetch, inventory: Inventory, scope: Scope, clock: Clock, *, memory_bytes: int) -> None:
        self.faults = Faults()
        self.checked = 0
        self.checked_bytes = 0
        self.cursor: Cursor | None = scope.cursor
        self._fetch = fetch
        self._inventory = inventory
        self._scope = scope
        self._clock = clock
        self._memory = MemoryBudget(memory_bytes)
        self._succession = Succession(scope.look, scope.cursor)
        self._taken_bytes = 0

    async def run(self, progress: Progress) -> None:
        """Read what the budget allows; `cursor` says at any time where the next run goes on, None at the end of a pass.

        Raises:
            ReplicadError: the store failed.
        """
        _, stored_bytes = await self._fetch.threads.run(self._inventory.totals)
        limit_bytes = self._limit_bytes(stored_bytes)
        progress.started(stored_bytes if limit_bytes is None else min(limit_bytes, stored_bytes))
        deadline = None if self._scope.budget.seconds is None else self._clock.monotonic() + self._scope.budget.seconds
        reading: deque[tuple[str, int, asyncio.Task[Verified | RawFault]]] = deque()
        complete = True
        async with task_group() as group:
            async for key, size_bytes in self._listed():
                if self._is_spent(size_bytes, limit_bytes, deadline):
                    complete = False
                    break
                self._taken_bytes += size_bytes
                taken_bytes = await self._take_memory(size_bytes)
                reading.append((key, size_bytes, group.create_task(self._verify(key, size_bytes, taken_bytes))))
                if len(reading) >= self._fetch.concurrency:
                    await self._settle(reading, progress)
            while reading:
                await self._settle(reading, progress)
        if complete:
            self.cursor = None

    def _limit_bytes(self, stored_bytes: int) -> int | None:
        budget = self._scope.budget
        limits = [budget.bytes] if budget.bytes is not None else []
        limits += [round(stored_bytes * budget.share)] if budget.share is not None else []
        return min(limits, default=None)

    def _is_spent(self, size_bytes: int, limit_bytes: int | None, deadline: float | None) -> bool:
        """Return whether the next object is left to the next run; one is always read, so that every run moves on."""
        if not self._taken_bytes:
            return False
        too_many = limit_bytes is not None and self._taken_bytes + size_bytes > limit_bytes
        return too_many or (deadline is not None and self._clock.monotonic() >= deadline)

    async def _listed(self) -> AsyncIterator[tuple[str, int]]:
        after = self._scope.cursor.after if self._scope.cursor else ""
        while rows := await self._fetch.threads.run(self._inventory.following, after, _ROWS):
            for key, size_bytes in rows:
                if kind_of(key) not in UNREAD:
                    yield key, size_bytes
            after = rows[-1][0]

    async def _take_memory(self, size_bytes: int) -> int:
        return await self._memory.take(min(size_bytes, WHOLE_BYTES) * _EXPANDED)

    async def _verify(self, key: str, size_bytes: int, taken_bytes: int) -> Verified | RawFault:
        try:
            return await verify_object(self._fetch, key, size_bytes, database_id=self._scope.database_id)
        except OF_ONE_OBJECT as error:
            return fault_of(key, kind_of(key), error)
        finally:
            self._memory.give_back(taken_bytes)

    async def _settle(
        self, reading: deque[tuple[str, int, asyncio.Task[Verified | RawFault]]], progress: Progress
    ) -> None:
        """Wait for the object whose turn it is, and hold it against its neighbours."""
        key, size_bytes, task = reading.popleft()
        found = await task
        if isinstance(found, Verified):
            try:
                self._succession.take(found)
            except Damaged as error:
                found = replace(fault_of(key, found.kind, error), whole=True)
        if isinstance(found, RawFault):
            self.faults.add(found)
        self.checked += 1
        self.checked_bytes += size_bytes
        progress.advanced(size_bytes)
        self._move_on(key)

    def _move_on(self, key: str) -> None:
        before, last = self._scope.cursor, self._succession.last
        read_bytes = self.checked_bytes + (before.read_bytes if before else 0)
        cursor = Cursor(database_id=self._scope.database_id, after=key, read_bytes=read_bytes)
        if last is not None:
            cursor = Cursor(
                database_id=self._scope.database_id,
                after=key,
                read_bytes=read_bytes,
                epoch=last.epoch,
                txid=last.txid,
                checksum=f"{last.checksum:016x}",
                pages=last.pages,
            )
        self.cursor = cursor
