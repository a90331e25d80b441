"""Owning one database: from the first question to the owner before, to the successor's first word.

The protocols are those of `replicad.ownership`; here they are given a store, a clock, a database and an application.
"""

from __future__ import annotations

import asyncio
import math
import uuid
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from replicad.errors import (
    CreateUndecided,
    DatabaseBusy,
    LocalDiffers,
    OwnedByAnother,
    ReplicadError,
    StoreUnreachable,
)
from replicad.host.lockfile import LockFile
from replicad.host.machine import instance_name
from replicad.host.race import race
from replicad.layout import handover_key
from replicad.observe import events
from replicad.ownership.claim import Me
from replicad.ownership.newcomer import Recorded, take_over
from replicad.ownership.owner import Fenced, Reclaimed, Retired, watch
from replicad.ownership.requests import Exists
from replicad.ownership.standby import stand_by
from replicad.position import Epoch
from replicad.replicate.flush import flush, pending
from replicad.replicate.mirroring import Owner
from replicad.replicate.own import Owned, deferred
from replicad.replicate.protocol import Driver, showing_life, timing_of
from replicad.replicate.standing import Standing
from replicad.replicate.state_file import read_state
from replicad.replicate.tenure import Tenure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from replicad.ownership.owner import Handover
    from replicad.position import Position
    from replicad.replicate.assembly import Followed
    from replicad.replicate.station import Station
    from replicad.restore.request import Evidence

T = TypeVar("T")

_RETRY_SECONDS = 1.0
_BUSY_SECONDS = 15.0  # with an application that was there first; one that is never done is said so after this
_END_TIMEOUT_SECONDS = 5.0  # for end.json: an epoch that was not ended costs the successor a question, no data


class Office:
    """One database's ownership by this instance. Lives on the event loop; implements protocol.Host."""

    def __init__(
        self,
        station: Station,
        environment: Mapping[str, str],
        *,
        changed: Callable[[], None],
        stop_application: Callable[[], Awaitable[None]],
    ) -> None:
        """`changed` is told of each new standing; `stop_application` returns when nothing of it can write any more."""
        self.standing = Standing.NEWCOMER
        self._changed = changed
        self.station = station
        self._stop_application = stop_application
        self._me = Me(id=uuid.uuid4().hex, instance=instance_name(environment))
        self._lock = LockFile(Path(f"{station.database.path}-replicad.lock"))
        self._followed: Followed | None = None
        self._following: asyncio.Task[None] | None = None
        self._serving: asyncio.Task[None] | None = None
        self._frozen_at: float | None = None
        self._may_replace = False
        self._warmed: Evidence | None = None  # of what was restored before the owner ended
        settings = station.settings
        self._timing = timing_of(settings)
        self._driver = Driver(
            station.store,
            station.tools.clock,
            station.log,
            station.metrics,
            host=self,
            fencing=settings.fencing,
        )

    @property
    def followed(self) -> Followed:
        """The database as it is followed now; only after `boot`."""
        if self._followed is None:
            raise AssertionError
        return self._followed

    @property
    def is_booted(self) -> bool:
        """Whether the database is in place."""
        return self._followed is not None

    @property
    def is_gone(self) -> bool:
        """Whether another instance owns the database."""
        return self.standing in {Standing.RETIRED, Standing.FENCED}

    @property
    def tenure(self) -> Tenure:
        """The epoch this instance is in; only after `boot`."""
        return self.followed.follower.following.tenure

    # --- becoming the owner ------------------------------------------------------------------------

    async def boot(self, *, may_replace: bool, claimed: Callable[[], None]) -> None:
        """Own the database, and bring it in place; returns when it is ready to be followed.

        Args:
            may_replace: False beside an application that may have the file open.
            claimed: called as soon as an epoch is ours.

        Raises:
            AlreadyRunning: another process on this machine follows the same file.
            StoreUnreachable: not within `boot_timeout`.
            ReplicadError: whatever else keeps the database from being brought in place.
        """
        self._may_replace = may_replace
        run, path = self.station.tools.threads.run, self.station.database.path
        await run(lambda: path.parent.mkdir(parents=True, exist_ok=True))
        await run(self._lock.acquire)
        while True:
            owned = await self._until_reached(self._take_over, self._deadline())
            claimed()
            if await self._begin(owned, may_replace=may_replace, deadline=self._deadline()):
                break
            await asyncio.sleep(self._timing.newcomer_poll_seconds)
        self._stand(Standing.OWNER)

    async def _take_over(self) -> Owned:
        store, path = self.station.store, self.station.database.path
        state = await self.station.tools.threads.run(read_state, path)
        if state is not None and (owned := await deferred(store, state, self._me)) is not None:
            return owned
        recorded = None if state is None else Recorded(epoch=Epoch(state.epoch), claim_id=state.claim_id)
        ownership = await self._driver.run(take_over(self._me, self._timing, recorded))
        return Owned(epoch=ownership.epoch, claim_id=ownership.claim_id, continued=ownership.continued)

    async def _begin(self, owned: Owned, *, may_replace: bool, deadline: float) -> bool:
        """Bring the database in place for an epoch; return False when another instance has overtaken this one."""
        station = self.station
        tenure = Tenure(self._driver, owned, self._me, station.metrics, station.log)
        # Half of the program is not needed before here: loading it must not keep the store from being asked.
        from replicad.replicate.assembly import assemble  # noqa: PLC0415
        from replicad.replicate.boot import LocalFile  # noqa: PLC0415

        async with AsyncExitStack() as stack:
            if not owned.deferred:
                await stack.enter_async_context(showing_life(self._driver, owned.epoch, self._me, self._timing))

            async def bring_in_place() -> Followed:
                state = await station.tools.threads.run(read_state, station.database.path)
                local = LocalFile(state=state, may_replace=may_replace, evidence=self._warmed)
                return await assemble(station, owned, tenure, local)

            followed = await self._until_reached(bring_in_place, deadline)
            self._warmed = None  # its table is the capture's now
            if not tenure.lost.is_set():
                self._followed = followed
                return True
        if followed.booted.opened is not None:
            await station.tools.threads.run(followed.booted.opened.source.close)
        return False

    def _deadline(self) -> float:
        return self.station.tools.clock.monotonic() + self.station.settings.boot_timeout_seconds

    async def _until_reached(self, step: Callable[[], Awaitable[T]], deadline: float) -> T:
        busy_deadline = min(deadline, self.station.tools.clock.monotonic() + _BUSY_SECONDS)
        while True:
            try:
                return await step()
            except (StoreUnreachable, CreateUndecided, DatabaseBusy) as error:
                busy = isinstance(error, DatabaseBusy)
                if self.station.tools.clock.monotonic() >= (busy_deadline if busy else deadline):
                    raise
                self.station.log.warning(
                    events.DATABASE_UNUSABLE if busy else events.STORE_UNREACHABLE, error=str(error)
                )
                await asyncio.sleep(_RETRY_SECONDS)

    # --- in office ---------------------------------------------------------------------------------

    def follow(self, group: asyncio.TaskGroup) -> None:
        """Start following, and looking for a successor."""
        self._start_following(group)
        self._serving = group.create_task(self._serve(group), name=f"own {self.station.database.name}")

    def _start_following(self, group: asyncio.TaskGroup) -> None:
        name = f"follow {self.station.database.name}"
        self._following = group.create_task(self.followed.follower.run(), name=name)

    async def _serve(self, group: asyncio.TaskGroup) -> None:
        while True:
            epoch = await self._until_claimed()
            outcome = await self._until_handed_over(epoch)
            if isinstance(outcome, Retired):
                self.station.metrics.handovers["handed_over"] += 1
                self.station.log.info(events.HANDED_OVER, epoch=epoch)
                self._stand(Standing.RETIRED)
            elif isinstance(outcome, Fenced):
                await self._give_way()
            back = outcome if isinstance(outcome, Reclaimed) else await self._stand_by(self.tenure.served)
            if back.restore or self.tenure.outgrown or not await self._go_on(back, group):
                # Another instance wrote to the line and is gone: what runs here is of an older state. The platform
                # starts this one again, and it restores.
                self._stand(Standing.FENCED)
                await self._stop_application()
                return

    async def _until_claimed(self) -> Epoch:
        """Claim a deferred epoch when somebody asks for it, if no upload has done so before; return the epoch."""
        tenure, epoch = self.tenure, self.tenure.epoch
        asked = Exists(key=handover_key(epoch))
        while not tenure.claimed.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timing.poll_seconds):
                    await tenure.claimed.wait()
                    break
            with suppress(ReplicadError):
                if await self._driver.ask(asked):
                    await tenure.until_may_ship()
        return epoch

    async def _until_handed_over(self, epoch: Epoch) -> Handover:
        watching = self._driver.run(watch(epoch, self._me, self._timing))
        asked = await race(watching, self.tenure.lost.wait())
        return Fenced(epoch=epoch) if asked is None else asked.result()

    async def _give_way(self) -> None:
        self.tenure.lose()
        self._stand(Standing.FENCED)
        if self.station.settings.when_fenced == "stop":
            await self._stop_application()
        else:
            await self.followed.follower.freeze("fenced")

    async def _stand_by(self, epoch: Epoch) -> Reclaimed:
        back = await self._driver.run(stand_by(epoch, self._me, self._timing))
        if back is None:  # somebody goes on with the line
            await asyncio.Event().wait()
            raise AssertionError
        return back

    async def _go_on(self, back: Reclaimed, group: asyncio.TaskGroup) -> bool:
        """Begin a new epoch with the database as it stands here: nobody else has written to the line.

        Return False when it turns out that the database could not be left as it stands.
        """
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        self.station.log.warning(events.RECLAIMED, epoch=back.epoch)
        self.station.metrics.handovers["reclaimed"] += 1
        owned = Owned(epoch=back.epoch, claim_id=back.claim_id, continued=True)
        try:
            begun = await self._begin(owned, may_replace=False, deadline=math.inf)
        except LocalDiffers as error:
            self.station.log.error(events.FENCED, error=str(error))  # noqa: TRY400 - it says enough
            return False
        self._start_following(group)  # also when it was overtaken: nothing is sent then, but writers can be kept out
        if begun:
            self._measure_freeze()
            self._stand(Standing.OWNER)
        else:
            await self._give_way()
        return True

    def _stand(self, standing: Standing) -> None:
        self.standing = standing
        self.station.metrics.owner = standing in {Standing.OWNER, Standing.HANDING_OVER}
        self._changed()

    # --- leaving -----------------------------------------------------------------------------------

    async def flush(self) -> None:
        """Make everything that is committed now durable.

        Raises:
            OwnedByAnother: another instance owns the database, and something is missing in what it went on from.
            FinalFlushFailed: some of it is not durable within `flush_timeout`.
        """
        self.must_not_be_fenced()
        if not self.is_gone:
            await flush(self.station, self.followed.follower)

    def must_not_be_fenced(self) -> None:
        """Raise OwnedByAnother when another instance took over and something here was not seen by it."""
        if self.standing is not Standing.FENCED:
            return
        if self.followed.follower.following.ledger.pending or self.station.settings.when_fenced == "stop":
            raise OwnedByAnother(
                database=self.station.database.path,
                found=f"it has not seen {self.pending()} of this one",
                hint="What it has not seen is in the local file only: keep it if it matters.",
            )

    def pending(self) -> str:
        """Say what is not durable."""
        return pending(self.followed.follower.following.ledger)

    async def end(self) -> None:
        """Stop following, and store that the epoch ended in order; the flush has succeeded."""
        await self.stop()
        if self.standing not in {Standing.OWNER, Standing.HANDING_OVER}:  # who asked must not wait for a sign of life
            return
        try:
            async with asyncio.timeout(_END_TIMEOUT_SECONDS):
                await self.followed.follower.store_end()
        except (TimeoutError, ReplicadError) as error:
            self.station.log.warning(events.EPOCH_NOT_ENDED, error=str(error))
        await self._finish_mirrors()

    async def _finish_mirrors(self) -> None:
        """Let the mirrors catch up, now that nothing else waits for them."""
        if not self.station.mirrors:
            return
        owner, seconds = Owner(following=self.followed.follower.following), self.station.settings.mirror_timeout_seconds
        finishing = [mirror.finish(owner, timeout_seconds=seconds) for mirror in self.station.mirrors]
        for result in await asyncio.gather(*finishing, return_exceptions=True):
            if isinstance(result, BaseException):  # a fault of one mirror is nobody else's
                self.station.log.error(events.FAULT_ISOLATED, error=repr(result))

    async def stop(self) -> None:
        """Stop following and looking for a successor."""
        tasks = [task for task in (self._serving, self._following) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._serving = self._following = None

    async def close(self) -> None:
        """Stop whatever still runs, and let go of the lock."""
        await self.stop()
        self._lock.release()

    # --- protocol.Host -----------------------------------------------------------------------------

    async def warm(self, epoch: Epoch) -> None:
        """Restore the present head into a file that is not there yet."""
        self.station.log.info(events.WARMING, epoch=epoch)
        if not self._may_replace:
            return
        try:
            from replicad.replicate.warm import warm  # noqa: PLC0415 - few starts need it

            self._warmed = await warm(self.station)
        except ReplicadError as error:  # what counts is listed again behind the claim
            self.station.log.info(events.WARMING_FAILED, error=str(error))

    async def freeze(self) -> None:
        """Keep the application's writers out, or stop it."""
        self.tenure.retiring = True
        self._stand(Standing.HANDING_OVER)
        self._frozen_at = self.station.tools.clock.monotonic()
        if self.station.settings.on_handover == "stop":
            await self._stop_application()
        else:
            await self.followed.follower.freeze("handover")

    async def ship_rest(self, seconds: float) -> Position | None:
        """Store what was committed up to now; None when that is not done within the time."""
        follower = self.followed.follower
        try:
            async with asyncio.timeout(seconds):
                await follower.sync()
        except TimeoutError:
            return None
        return follower.durable_position()

    async def thaw(self, *, ship: bool) -> None:
        """Let the writers go on; with `ship` False, into no epoch until one is ours."""
        if ship:
            self.tenure.stay()
        else:
            self.tenure.retiring = True
            self.tenure.close()
        await self.followed.follower.thaw("handover")
        self._measure_freeze()
        self._stand(Standing.OWNER)

    def _measure_freeze(self) -> None:
        if self._frozen_at is not None:
            self.station.metrics.frozen.observe(self.station.tools.clock.monotonic() - self._frozen_at)
            self._frozen_at = None
