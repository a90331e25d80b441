"""Driving a protocol of ownership: its requests, carried out on a real store, with a real clock."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from replicad.errors import CreateUndecided, Damaged, KeyNotGiven, ObjectExists, ObjectMissing, ReplicadError
from replicad.layout import claim_key
from replicad.observe import events
from replicad.ownership import requests
from replicad.ownership.claim import claimant
from replicad.ownership.owner import show_life
from replicad.ownership.requests import Created, Happened
from replicad.ownership.timing import Timing
from replicad.replicate.fencing import Fence
from replicad.replicate.own import highest_claim

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from structlog.typing import FilteringBoundLogger

    from replicad.config.model import Settings
    from replicad.host.clock import Clock
    from replicad.observe.metrics import DatabaseMetrics
    from replicad.ownership.claim import Me
    from replicad.ownership.requests import Request, Steps
    from replicad.position import Epoch, Position
    from replicad.replicate.fencing import Fencing
    from replicad.store.protocol import ObjectStore

T = TypeVar("T")

_SETTLE_SECONDS = 2.0  # longer than a claim takes on its way as a rule, so that of two one gives up at once

_EVENTS = {
    Happened.CLAIM_MADE: events.CLAIM_CREATED,
    Happened.CLAIM_LOST: events.CLAIM_LOST,
    Happened.LOST_ANSWER_SETTLED: events.LOST_ANSWER_SETTLED,
    Happened.ASKED: events.HANDOVER_REQUESTED,
    Happened.OWNER_SILENT: events.OWNER_SILENT,
    Happened.REQUEST_HEARD: events.HANDOVER_BEGUN,
    Happened.PUT_OFF: events.HANDOVER_PUT_OFF,
}


class Host(Protocol):
    """What a protocol wants of the database and the application."""

    async def warm(self, epoch: Epoch) -> None:
        """Restore the present head, while its owner goes on."""

    async def freeze(self) -> None:
        """Keep the application's writers out."""

    async def ship_rest(self, seconds: float) -> Position | None:
        """Store what was committed up to now; None when that is not done within the time."""

    async def thaw(self, *, ship: bool) -> None:
        """Let the writers go on; with `ship` False, into no epoch."""


class Driver:
    """Carries protocols out."""

    def __init__(  # noqa: PLR0913 - one of each
        self,
        store: ObjectStore,
        clock: Clock,
        log: FilteringBoundLogger,
        metrics: DatabaseMetrics,
        *,
        host: Host,
        fencing: Fencing,
    ) -> None:
        self._store = store
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._host = host
        self.fence = Fence(store, fencing, metrics, log)

    async def run(self, steps: Steps[T]) -> T:
        """Carry a protocol out; returns its result.

        Raises:
            ReplicadError: what a request met and the protocol did not care for.
        """
        answer: Any = None
        failed: ReplicadError | None = None
        try:
            while True:
                try:
                    request = steps.send(answer) if failed is None else steps.throw(failed)
                except StopIteration as end:
                    result: T = end.value
                    return result
                answer, failed = None, None
                try:
                    answer = await self.ask(request)
                except ReplicadError as error:
                    failed = error
        finally:
            steps.close()

    async def ask(self, request: Request) -> Any:  # noqa: ANN401, C901, PLR0911, PLR0912 - one answer for each
        """Carry one request out; return its answer."""
        match request:
            case requests.Get():
                return await self._get(request.key)
            case requests.Exists():
                return await self._get(request.key) is not None
            case requests.Create():
                return await self._create(request.key, request.body)
            case requests.Put():
                return await self._store.put(request.key, request.body)
            case requests.Claims():
                return await highest_claim(self._store)
            case requests.Now():
                return self._clock.monotonic()
            case requests.NowMs():
                return self._clock.now_ms()
            case requests.Pause():
                return await asyncio.sleep(request.seconds)
            case requests.Log():
                return self._note(request)
            case requests.Warm():
                await self.fence.holds()  # found out before the owner is asked: from then on its writers may wait
                return await self._host.warm(request.epoch)
            case requests.Freeze():
                return await self._host.freeze()
            case requests.ShipRest():
                return await self._host.ship_rest(request.seconds)
            case requests.Thaw():
                return await self._host.thaw(ship=request.ship)

    async def _get(self, key: str) -> bytes | None:
        try:
            return await self._store.get(key)
        except ObjectMissing:
            return None
        except (Damaged, KeyNotGiven):
            # It is there, and not ours: a newcomer may have a newer key already. What it holds decides nothing here.
            return b""

    def _note(self, log: requests.Log) -> None:
        if log.happened is Happened.LOST_ANSWER_SETTLED:
            self._metrics.lost_answers += 1
        self._log.info(_EVENTS[log.happened], epoch=log.epoch)

    async def holds_claim(self, epoch: Epoch, claim_id: str) -> bool:
        """Return whether an epoch that was claimed with this id has not been claimed by another since.

        Only a store that does not decide between claimants can have let it be replaced: only there anything is asked.

        Raises:
            StoreUnreachable, StoreRefused: it is not known.
        """
        if not self.fence.is_advisory:
            return True
        found = await self._get(claim_key(epoch))
        return found is None or claimant(found) == claim_id  # a claim that was deleted is nobody else's

    async def _create(self, key: str, body: bytes) -> Created:
        if not await self.fence.holds():
            return await self._create_advisory(key, body)
        try:
            await self._store.create(key, body)
        except ObjectExists:
            return Created.TAKEN
        except CreateUndecided:
            return Created.UNDECIDED
        return Created.MADE

    async def _create_advisory(self, key: str, body: bytes) -> Created:
        """Create as well as it can be done without the store's help: whoever wrote last has it.

        Two whose writes are further apart than the settling time both believe that they have it. `holds_claim` tells
        the first of them, before it reports anything; the second one finds the first one's start.
        """
        if await self._get(key) is not None:
            return Created.TAKEN
        await self._store.put(key, body)
        await asyncio.sleep(_SETTLE_SECONDS)
        return Created.MADE if await self._get(key) == body else Created.TAKEN


def timing_of(settings: Settings) -> Timing:
    """Return the beats that owner and newcomer both derive from the settings."""
    return Timing(
        poll_seconds=settings.handover_poll_interval_seconds,
        newcomer_poll_seconds=min(1.0, settings.handover_poll_interval_seconds / 4),
        slack_seconds=settings.handover_poll_interval_seconds,
        handover_timeout_seconds=settings.handover_timeout_seconds,
    )


@asynccontextmanager
async def showing_life(driver: Driver, epoch: Epoch, me: Me, timing: Timing) -> AsyncIterator[None]:
    """Say again and again, while the block runs, that the epoch's owner is alive."""
    living = asyncio.create_task(driver.run(show_life(epoch, me, timing)))
    try:
        yield
    finally:
        living.cancel()
        await asyncio.gather(living, return_exceptions=True)
