"""One process of replicad's in a simulated year: booted as the daemon boots, following with all its duties."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from replicad.config import load
from replicad.host.threads import Threads
from replicad.observe.metrics import Metrics
from replicad.replicate.office import Office
from replicad.replicate.station import Station
from replicad.replicate.tools import Tools
from tests.simulate.year_store import CountedStore, MortalStore
from tests.simulate.year_time import OwnWatcher, YearClock

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping

    from structlog.typing import EventDict, WrappedLogger

    from replicad.replicate.follower import Follower

COMPANIONS = ("", "-wal", "-shm", "-replicad", "-replicad.lock")
_WARNED = {"warning", "error", "critical", "exception"}


async def _nothing_to_stop() -> None:
    """The application is stopped by whoever stops the process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a process finds."""

    database: Path
    store: CountedStore
    settings: Mapping[str, str]
    said: Counter[str]  # events of weight, and those that tell what was done

    def logger(self) -> structlog.typing.FilteringBoundLogger:
        """Return a logger that counts events, and says nothing."""

        def count(_: WrappedLogger, method: str, event: EventDict) -> EventDict:
            self.said[f"{method}: {event['event']}" if method in _WARNED else str(event["event"])] += 1
            raise structlog.DropEvent

        everything = structlog.make_filtering_bound_logger(0)
        logger: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
            None, processors=[count], wrapper_class=everything
        )
        return logger


class Process:
    """One process; `start`, then `stop` or `kill`."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self.store = MortalStore(surroundings.store)
        self.metrics = Metrics(version="0", wall_seconds=lambda: 0.0).for_database("app.db")
        self.watcher = OwnWatcher(asyncio.get_running_loop())
        self._tools = Tools(
            clock=YearClock(),
            threads=Threads("year", 1),
            background=Threads("year-background", 1),
            watcher=self.watcher,
        )
        flags = {"database": str(surroundings.database), "replica": "memory://year", **surroundings.settings}
        settings = load(flags=flags, environ={}, required=()).settings
        self.settings = settings
        station = Station(
            database=settings.databases[0],
            store=self.store,
            settings=settings,
            tools=self._tools,
            metrics=self.metrics,
            log=surroundings.logger(),
        )
        self._office = Office(station, {}, changed=lambda: None, stop_application=_nothing_to_stop)
        self._task: asyncio.Task[None] | None = None

    @property
    def follower(self) -> Follower:
        """What follows the database."""
        return self._office.followed.follower

    @property
    def is_booted(self) -> bool:
        """Whether the database is in place."""
        return self._office.is_booted

    @property
    def wal_bytes(self) -> int:
        """What it has read of the WAL."""
        return self.metrics.captured_bytes or 0

    async def start(self) -> bool:
        """Boot and follow; return False when it died meanwhile."""
        booting = asyncio.ensure_future(self._office.boot(may_replace=True, claimed=lambda: None))
        if not await self._until(booting):
            return False
        self._office._following = self._task = asyncio.create_task(self.follower.run())
        if self._office.followed.booted.opened is None:
            return True
        return await self._until(asyncio.ensure_future(self.follower.until_capturing()))

    async def sync(self) -> bool:
        """Return when all is durable that was committed; False when it died meanwhile."""
        return await self._until(asyncio.ensure_future(self.follower.sync()))

    async def stop(self) -> bool:
        """End in order; return False when it died meanwhile."""
        for step in (self._office.flush, self._office.end, self._office.close):
            if not await self._until(asyncio.ensure_future(step())):
                return False
        return True

    async def kill(self) -> None:
        """End at once: what stands on the disk stays as it is, nothing more is sent."""
        self.store.kill()
        disk, kept = self._surroundings.database, self._surroundings.database.with_name("kept")
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir()
        for companion in ("", "-wal", "-replicad"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(f"{disk}{companion}", kept / f"{disk.name}{companion}")
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._office.is_booted and self._office.followed.booted.opened is not None:
            self._office.followed.booted.opened.source.close()
        await self._office.close()

    def lose_disk(self) -> None:
        """Begin with an empty disk; the process and the application have ended."""
        for companion in COMPANIONS:
            Path(f"{self._surroundings.database}{companion}").unlink(missing_ok=True)

    def keep_disk(self) -> None:
        """Begin with what stood on the disk when the process was killed; it and the application have ended."""
        disk = self._surroundings.database
        self.lose_disk()
        for file in disk.with_name("kept").iterdir():
            file.rename(disk.with_name(file.name))

    async def _until(self, step: asyncio.Future[Any]) -> bool:
        """Wait until it is done, or the process has died of one of its requests; return whether it is."""
        dying = asyncio.ensure_future(self.store.died.wait())
        try:
            await asyncio.wait((step, dying), return_when=asyncio.FIRST_COMPLETED)
            if self.store.died.is_set():
                step.cancel()
                await asyncio.gather(step, return_exceptions=True)
                return False
            await step
            return True
        finally:
            dying.cancel()
