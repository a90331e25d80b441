"""All databases of one process: booted, followed, flushed; and what the control interface asks of them."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from replicad import __version__
from replicad.errors import NotReady, OwnedByAnother
from replicad.observe import events
from replicad.observe.logging import get_logger
from replicad.replicate.notes import NotingStore
from replicad.replicate.office import Office
from replicad.replicate.standing import Standing
from replicad.replicate.station import Station
from replicad.replicate.status import database_status, instant
from replicad.replicate.verdicts import as_json
from replicad.store.database import contents, stored_objects
from replicad.store.open import open_store

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from structlog.typing import FilteringBoundLogger

    from replicad.config.model import DatabaseSettings, Settings
    from replicad.observe.metrics import Metrics
    from replicad.replicate.mirror import Mirror
    from replicad.replicate.mirrors import Mirrors
    from replicad.replicate.tools import Tools
    from replicad.store.protocol import ObjectStore


class Daemon:
    """Implements `replicad.observe.http.Control`."""

    def __init__(
        self,
        settings: Settings,
        tools: Tools,
        metrics: Metrics,
        *,
        stop_application: Callable[[], Awaitable[None]],
    ) -> None:
        """`stop_application` returns when nothing of it can write any more."""
        self._stop_application = stop_application
        self._settings = settings
        self._tools = tools
        self._metrics = metrics
        self._log = get_logger()
        self._stores: dict[str, ObjectStore] = {}
        self._mirrors: Mirrors | None = None
        self._offices: list[Office] = []
        self._changed = asyncio.Event()
        self._not_ready = "starting"
        self.claimed = asyncio.Event()
        """Set with the first database's claim."""

    # --- life --------------------------------------------------------------------------------------

    async def boot(self, *, may_replace: bool) -> bool:
        """Bring every database in place and own it; return whether this is a first start.

        Raises:
            StoreUnreachable: not within `boot_timeout`.
            ReplicadError: whatever else keeps a database from being brought in place.
        """
        for database in self._settings.databases:
            self._not_ready = f"{database.name}: reaching the store and restoring"
            objects, log = await self._objects(database), get_logger(database=database.name)
            mirrors = self._mirrors_of(database, objects, log)
            if mirrors:  # beneath the encryption: what they repeat is what is stored
                objects = NotingStore(objects, [mirror.notes for mirror in mirrors])
            station = Station(
                database=database,
                store=contents(objects, self._settings.encryption_keys),
                settings=self._settings,
                tools=self._tools,
                metrics=self._metrics.for_database(database.name),
                log=log,
                mirrors=mirrors,
            )
            office = Office(station, os.environ, changed=self._changed.set, stop_application=self._stop_application)
            self._offices.append(office)
            await office.boot(may_replace=may_replace, claimed=self.claimed.set)
        return any(office.followed.booted.first_start for office in self._offices)

    async def follow(self, group: asyncio.TaskGroup) -> None:
        """Start following; returns when every database that exists is followed."""
        for office in self._offices:
            office.follow(group)
        for office in self._offices:
            if office.followed.booted.opened is not None:
                await office.followed.follower.until_capturing()

    def now_ready(self) -> None:
        """Say from now on that the application may be used."""
        self._not_ready = ""
        self._log.info(events.READY)

    async def flush(self) -> None:
        """Make everything that is committed now durable.

        Raises:
            FinalFlushFailed: some of it is not within `flush_timeout`.
        """
        self._not_ready = "stopping"
        results = await asyncio.gather(*(office.flush() for office in self._offices), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def end(self) -> None:
        """Stop following, and store that the epochs ended in order; every flush has succeeded."""
        await asyncio.gather(*(office.end() for office in self._offices))

    async def close(self) -> None:
        """Stop whatever still runs and let go of the stores."""
        await asyncio.gather(*(office.close() for office in self._offices))
        if self._mirrors is not None:
            await self._mirrors.close()
        for store in self._stores.values():
            await store.close()

    @property
    def is_leaving(self) -> bool:
        """Whether the application was stopped for another instance that takes over, or has taken over, as agreed."""
        return any(office.standing in {Standing.HANDING_OVER, Standing.RETIRED} for office in self._offices)

    async def until_back(self) -> None:
        """Wait until no handover is under way any more, because whoever asked is gone: the application is missing."""
        while self.is_leaving:
            self._changed.clear()
            await self._changed.wait()

    async def until_driven_out(self) -> None:
        """Wait until another instance has taken over without asking, where that ends this one."""
        while not (
            self._settings.when_fenced == "stop" and any(office.standing is Standing.FENCED for office in self._offices)
        ):
            self._changed.clear()
            await self._changed.wait()

    # --- control -----------------------------------------------------------------------------------

    def status(self) -> Mapping[str, object]:
        """Return what is going on."""
        now_ms = self._tools.clock.now_ms()
        return {
            "version": __version__,
            "pid": os.getpid(),
            "ready": not self._not_ready,
            "databases": [database_status(office, now_ms=now_ms) for office in self._offices],
        }

    def ready(self) -> tuple[bool, str]:
        """Return whether the application was started and capture runs, and if not, why."""
        away = [
            f"{office.station.database.name}: {office.standing.value}" for office in self._offices if office.is_gone
        ]
        reason = self._not_ready or "; ".join(away)
        return not reason, reason

    async def sync(self, *, timeout_seconds: float) -> Mapping[str, object]:
        """Return when all that is committed now is durable.

        Raises:
            NotReady: it is not within the time, or the database is not in place yet.
            OwnedByAnother: it never will be: another instance took over, and has not seen what is committed here.
        """
        self._must_be_in_place("the sync", timeout_seconds)
        for office in self._offices:
            office.must_not_be_fenced()
        try:
            async with asyncio.timeout(timeout_seconds):
                marks = await asyncio.gather(*(office.followed.follower.sync() for office in self._offices))
        except TimeoutError as error:
            raise NotReady(
                what="the sync",
                timeout_seconds=timeout_seconds,
                found="; ".join(office.pending() for office in self._offices),
                hint="Nothing is lost: it is sent as soon as the store takes it. See `replicad status`.",
            ) from error
        return {
            "databases": [
                {"name": office.station.database.name, "durable_txid": mark.txid, "durable_at": instant(mark.ms)}
                for office, mark in zip(self._offices, marks, strict=True)
            ]
        }

    async def snapshot(self) -> Mapping[str, object]:
        """Take a snapshot of each database; return when it is durable."""
        self._must_be_in_place("the snapshot", 0.0)
        manifests = await asyncio.gather(*(office.followed.follower.snapshot("command") for office in self._offices))
        return {
            "databases": [
                {
                    "name": office.station.database.name,
                    "txid": manifest.txid,
                    "stored_bytes": manifest.stored_bytes,
                    "chunks": len(manifest.chunks),
                }
                for office, manifest in zip(self._offices, manifests, strict=True)
            ]
        }

    async def prune(self, *, limit: int) -> Mapping[str, object]:
        """Delete what retention lets go of each database; return what went and what stayed.

        Raises:
            NotReady: a database is not in place yet.
            OwnedByAnother: another instance took over.
            ReplicadError: the store failed, or does not allow it.
        """
        self._must_be_in_place("retention", 0.0)
        for office in self._offices:
            if office.is_gone:
                raise OwnedByAnother(
                    database=office.station.database.path,
                    found=office.standing.value,
                    hint="Ask where its owner runs: only that one deletes.",
                )
        keepers = [office.followed.follower.keeper for office in self._offices]
        found = await asyncio.gather(*(keeper.prune() for keeper in keepers))
        return {
            "databases": [
                {"name": office.station.database.name, "replica": office.station.store.url}
                | dict(as_json(examined, limit=limit))
                for office, examined in zip(self._offices, found, strict=True)
            ]
        }

    def _must_be_in_place(self, what: str, timeout_seconds: float) -> None:
        if not self._offices or not all(office.is_booted for office in self._offices):
            hint = "Ask again when `replicad wait` returns."
            raise NotReady(what=what, timeout_seconds=timeout_seconds, found=self._not_ready or "starting", hint=hint)

    # --- inner -------------------------------------------------------------------------------------

    def _mirrors_of(
        self, database: DatabaseSettings, objects: ObjectStore, log: FilteringBoundLogger
    ) -> tuple[Mirror, ...]:
        if not self._settings.mirrors:
            return ()
        from replicad.mirror.side import Side  # noqa: PLC0415 - most have none
        from replicad.replicate.mirrors import Mirrors  # noqa: PLC0415 - likewise

        self._mirrors = self._mirrors or Mirrors(self._settings, self._tools, self._metrics)
        return self._mirrors.of(database.name, Side.of(objects, self._settings.encryption_keys), log)

    async def _objects(self, database: DatabaseSettings) -> ObjectStore:
        """Return a database's part of its store, as it is stored."""
        if database.replica not in self._stores:
            settings = self._settings
            options = replace(
                settings.store_options(concurrency=max(settings.upload_concurrency, settings.restore_concurrency)),
                retry_seconds=min(settings.retry_timeout_seconds, settings.boot_timeout_seconds),
            )
            self._stores[database.replica] = await open_store(database.replica, options, observer=self._metrics)
        return stored_objects(self._stores[database.replica], database.name)
