"""Rolling up: small segments become large objects, and go when nobody can be reading them any more.

The store is asked once what is there, when the first segments of the epoch have been stored: also for what earlier
epochs of the line have left. From then on it is asked for what came since, whenever as many segments were stored as
make a roll-up: a LIST of one page, a GET for each source and a PUT; and before the sources go, a LIST and two GETs. A
day of one segment a second costs 90,000 GETs, 2,700 LISTs and 1,400 PUTs: an eighth of what storing it costs.

Nothing here is remembered by anybody but the store. Whatever is broken off, or killed, is found in the next listing: a
roll-up that was not stored is made again, sources that were not deleted are covered by a roll-up that is older.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from replicad.errors import Damaged, ObjectMissing, StoreRefused
from replicad.layout import log_begin
from replicad.observe import events
from replicad.plan.line import LineSegment, line_of_history
from replicad.plan.listing import SegmentObject, read_listing
from replicad.plan.rollup import LIMITS, Waiting, add, covering, covers, next_groups, settle
from replicad.position import TXID
from replicad.replicate.sources import Unfit, put_together, read_source
from replicad.restore.fetch import Fetch
from replicad.restore.history import read_history
from replicad.restore.rollups import list_log, open_rollup
from replicad.restore.together import gather_bounded

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from replicad.errors import ReplicadError
    from replicad.layout import SegmentKey
    from replicad.plan.line import History
    from replicad.plan.rollup import Group, RollUpLimits
    from replicad.position import Epoch
    from replicad.replicate.following import Following
    from replicad.store.protocol import ObjectStore, StoredObject

_AT_ONCE = 4  # GETs
_LEAST_PAUSE_SECONDS = 1.0  # before a look that came too early is repeated: a timer may be early by a rounding error


class RollingUp:
    """The duty, of one epoch.

    Args:
        following: the database.
        store: its own part of the store.
        limits: what is rolled up.
    """

    name = "rollup"

    def __init__(self, following: Following, store: ObjectStore, *, limits: RollUpLimits = LIMITS) -> None:
        self._following = following
        self._store = store
        self._limits = limits
        self._epoch = following.lineage.epoch
        self._fetch = Fetch(store, following.tools.background, concurrency=_AT_ONCE)
        self._waiting = Waiting(objects=())
        self._look_at_step = 0  # of the ledger: when it is worth while to look again
        self._covering: list[tuple[float, str, SegmentObject]] = []  # by when to look what they make superfluous
        self._may_delete = True
        self._stored_at: dict[SegmentKey, float] = {}  # monotonic, of roll-ups that were stored here
        self._latest: tuple[datetime, float] | None = None  # the store's clock when an object was stored; monotonic

    async def run(self) -> None:
        """Roll up what is stored, and delete what has become superfluous, until the epoch is lost."""
        ledger = self._following.ledger
        self._look_at_step = ledger.steps + self._limits.least
        await ledger.until_steps(self._look_at_step)
        while not await self._begin():  # what the epoch began with was deleted; a snapshot stores it again
            await ledger.until_steps(ledger.steps + self._limits.fan)
        while not self._following.tenure.lost.is_set():
            if (step := ledger.steps) >= self._look_at_step:
                await self._look()
                self._waiting = settle(await self._roll_up(self._waiting), self._limits)
                self._look_at_step = step + self._short_of()
            await self._delete_superfluous()
            await self._wait()

    # --- when ------------------------------------------------------------------------------------

    async def _wait(self) -> None:
        """Wait until there is something to roll up, or to delete."""
        due_at = self._covering[0][0] if self._may_delete and self._covering else None
        seconds = None if due_at is None else max(0.0, due_at - self._now())
        try:
            async with asyncio.timeout(seconds):
                await self._following.ledger.until_steps(self._look_at_step)
        except TimeoutError:
            return

    def _short_of(self) -> int:
        """Return how many more segments make a roll-up; the newest one is never part of one."""
        single = sum(not found.is_rollup for found in self._waiting.objects)
        missing = self._limits.fan + 1 - single
        return missing if missing > 0 else self._limits.fan

    def _now(self) -> float:
        return self._following.tools.clock.monotonic()

    # --- what there is -----------------------------------------------------------------------------

    async def _begin(self) -> bool:
        """Learn what is stored, and roll up what earlier epochs of the line have left."""
        self._covering.clear()
        history = await read_history(self._store)
        if self._epoch not in history.starts:
            return False  # somebody has deleted it; nothing is to be added to that
        run = self._following.tools.background.run
        for found in await run(covering, history.listing.segments):
            heappush(self._covering, (self._now(), found.name, found))
        for left in await run(_left_behind, history, self._epoch):
            await self._roll_up(left)
        own = [found for found in history.listing.segments if found.key.epoch == self._epoch]
        cuts = [found.key.txid for found in history.listing.manifests if found.key.epoch == self._epoch]
        self._waiting = await run(add, Waiting(objects=()), own, cuts)
        return True

    async def _look(self) -> None:
        """Learn what was stored since."""
        # From the newest known one on: when that was stored tells how far the store's clock has gone.
        known = self._waiting.objects[-2:]
        rows = await self._list(self._epoch, after=known[0].name if known else "")
        snapshot = self._following.snapshots.newest
        cuts = [TXID(snapshot.txid)] if snapshot is not None and snapshot.epoch == self._epoch else []
        self._waiting = add(self._waiting, _segments(rows), cuts)

    async def _list(self, epoch: Epoch, *, after: str = "", last: TXID | None = None) -> list[StoredObject]:
        """List the log of an epoch, as `list_log` does; note how far the store's clock has gone."""
        rows: list[StoredObject] = []
        async for row in list_log(self._store, epoch, after=after, last=last):
            rows.append(row)
            if self._latest is None or row.modified_at > self._latest[0]:
                self._latest = row.modified_at, self._now()
        return rows

    # --- rolling up --------------------------------------------------------------------------------

    async def _roll_up(self, waiting: Waiting) -> Waiting:
        """Roll up all that can be; return what waits then."""
        run = self._following.tools.background.run  # of a day that was not rolled up, planning takes a while
        while groups := await run(next_groups, waiting, self._limits):
            made: list[SegmentObject] = []
            for group in groups:
                if self._following.tenure.lost.is_set():
                    return waiting
                try:
                    made.append(await self._store_rollup(group))
                except Unfit as found:
                    waiting = replace(waiting, apart=waiting.apart | {found.key})
                    if isinstance(found.error, Damaged):  # one that is gone was deleted by whoever keeps the window
                        self._refuse(found.key, found.error)
            waiting = await run(add, waiting, made)
        return waiting

    def _refuse(self, key: SegmentKey, error: ReplicadError) -> None:
        self._following.metrics.rollups_refused += 1
        self._following.log.error(events.ROLL_UP_REFUSED, key=str(key), error=str(error))

    async def _store_rollup(self, group: Group) -> SegmentObject:
        """Read the sources back, prove them, and store the roll-up; return it.

        Raises:
            Unfit: one of them is damaged or gone, or does not continue the one before it.
            ReplicadError: the store failed.
        """
        following = self._following
        async with following.tools.heavy:
            database_id = following.lineage.database_id
            gets = (partial(read_source, self._fetch, found, database_id) for found in group.sources)
            sources = await gather_bounded(gets, _AT_ONCE)
            body = await following.tools.background.run(put_together, sources)
            del sources
            await self._store.put(str(group.key), body)
        stored = SegmentObject(key=group.key, size_bytes=len(body))
        if self._may_delete:
            self._stored_at[group.key] = self._now()
            heappush(self._covering, (self._now() + following.settings.rollup_grace_seconds, stored.name, stored))
        following.metrics.rollups += 1
        following.metrics.rollup_bytes += len(body)
        following.log.info(
            events.SEGMENTS_ROLLED_UP,
            first_txid=group.key.first,
            last_txid=group.key.last,
            objects=len(group.sources),
            stored_bytes=len(body),
        )
        return stored

    # --- deleting ----------------------------------------------------------------------------------

    async def _delete_superfluous(self) -> None:
        """Delete what roll-ups have made superfluous for long enough."""
        while self._may_delete and self._covering and self._covering[0][0] <= self._now():
            _, _, rollup = self._covering[0]
            try:
                early_seconds = await self._delete_below(rollup)
            except StoreRefused as error:  # whoever gave us a key that may not delete wants none of it
                self._covering.clear()
                self._may_delete = False
                self._following.metrics.errors[type(error).__name__] += 1
                self._following.log.warning(events.DUTY_FAILED, duty=self.name, error=str(error))
                return
            heappop(self._covering)
            if early_seconds > 0:
                again_at = self._now() + max(early_seconds, _LEAST_PAUSE_SECONDS)
                heappush(self._covering, (again_at, rollup.name, rollup))
            else:
                self._stored_at.pop(rollup.key, None)

    async def _delete_below(self, rollup: SegmentObject) -> float:
        """Delete the objects whose transactions a roll-up holds; return how many seconds it is too early for that."""
        key = rollup.key
        rows = await self._list(key.epoch, after=log_begin(key.epoch, key.first), last=key.last)
        modified_at = next((row.modified_at for row in rows if row.key == str(key)), None)
        superfluous = [found.name for found in _segments(rows) if covers(rollup, found)]
        if not superfluous or modified_at is None:
            return 0.0
        early_seconds = self._following.settings.rollup_grace_seconds - self._age_seconds(key, modified_at)
        if early_seconds > 0:
            return early_seconds
        try:  # it is what is left of them: never believed without a look
            await open_rollup(self._fetch, LineSegment(stored=rollup, until=key.last))
        except (Damaged, ObjectMissing) as error:
            self._refuse(key, error)
            return 0.0
        await self._following.removal.remove_replaced(rollup, superfluous)
        return 0.0

    def _age_seconds(self, key: SegmentKey, modified_at: datetime) -> float:
        """Return how long a roll-up has been stored at least.

        By our own clock if it was stored here; else by the store's, which has gone at least as far as when it stored
        the newest object that was listed. The two are never compared.
        """
        now, stored_at = self._now(), self._stored_at.get(key)
        if stored_at is not None:
            return now - stored_at
        if self._latest is None:
            return 0.0
        latest_at, seen_at = self._latest
        return (latest_at - modified_at).total_seconds() + now - seen_at


def _segments(rows: Sequence[StoredObject]) -> tuple[SegmentObject, ...]:
    return read_listing((row.key, row.size_bytes) for row in rows).segments


def _left_behind(history: History, own: Epoch) -> list[Waiting]:
    """Return what stands in earlier epochs of the line, as far as the line goes through them."""
    line = line_of_history(history, epoch=own)
    left: list[Waiting] = []
    for part in line.epochs[:-1]:
        objects = [
            found.stored
            for found in line.segments
            if found.stored.key.epoch == part.epoch and found.until == found.stored.key.last
        ]
        cuts = [found.key.txid for found in line.manifests if found.key.epoch == part.epoch]
        left.append(add(Waiting(objects=(), ended=True), objects, cuts))
    return left
