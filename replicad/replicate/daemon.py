"""All databases of one process: booted, followed, flushed; and what the control interface asks of them."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from replicad import __version__
from replicad.errors import FinalFlushFailed, NotReady, ReplicadError, StoreUnreachable
from replicad.observe import events
from replicad.observe.logging import get_logger
from replicad.replicate.own import Owned, own
from replicad.replicate.state_file import read_state
from replicad.replicate.status import database_status, instant
from replicad.store.open import open_store
from replicad.store.prefixed import PrefixedStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from replicad.config.model import DatabaseSettings, Settings
    from replicad.observe.metrics import Metrics
    from replicad.replicate.assembly import Followed
    from replicad.replicate.tools import Tools
    from replicad.store.protocol import ObjectStore

T = TypeVar("T")

_BOOT_RETRY_SECONDS = 1.0
_END_TIMEOUT_SECONDS = 5.0  # for end.json: an epoch that was not ended costs the successor a question, no data


class Daemon:
    """Implements `replicad.observe.http.Control`."""

    def __init__(self, settings: Settings, tools: Tools, metrics: Metrics) -> None:
        self._settings = settings
        self._tools = tools
        self._metrics = metrics
        self._log = get_logger()
        self._stores: dict[str, ObjectStore] = {}
        self._followed: list[Followed] = []
        self._tasks: list[asyncio.Task[None]] = []
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
            self._followed.append(await self._boot_one(database, may_replace=may_replace))
        return any(followed.booted.first_start for followed in self._followed)

    async def follow(self, group: asyncio.TaskGroup) -> None:
        """Start following; returns when every database that exists is followed."""
        for followed in self._followed:
            self._tasks.append(group.create_task(followed.follower.run(), name=f"follow {followed.settings.name}"))
        for followed in self._followed:
            if followed.booted.opened is not None:
                await followed.follower.until_capturing()

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
        results = await asyncio.gather(
            *(self._flush_one(followed) for followed in self._followed), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def end(self) -> None:
        """Stop following, and store that the epochs ended in order; every flush has succeeded."""
        await self._stop_following()
        for followed in self._followed:
            try:
                async with asyncio.timeout(_END_TIMEOUT_SECONDS):
                    await followed.follower.store_end()
            except (TimeoutError, ReplicadError) as error:
                self._log.warning(events.EPOCH_NOT_ENDED, database=followed.settings.name, error=str(error))

    async def close(self) -> None:
        """Stop whatever still runs and let go of the stores."""
        await self._stop_following()
        for store in self._stores.values():
            await store.close()

    # --- control -----------------------------------------------------------------------------------

    def status(self) -> Mapping[str, object]:
        """Return what is going on."""
        now_ms = self._tools.clock.now_ms()
        return {
            "version": __version__,
            "pid": os.getpid(),
            "ready": not self._not_ready,
            "databases": [
                database_status(followed.settings, followed.follower, store=followed.store.url, now_ms=now_ms)
                for followed in self._followed
            ],
        }

    def ready(self) -> tuple[bool, str]:
        """Return whether the application was started and capture runs, and if not, why."""
        return not self._not_ready, self._not_ready

    async def sync(self, *, timeout_seconds: float) -> Mapping[str, object]:
        """Return when all that is committed now is durable; raises NotReady when it is not within the time."""
        try:
            async with asyncio.timeout(timeout_seconds):
                marks = await asyncio.gather(*(followed.follower.sync() for followed in self._followed))
        except TimeoutError as error:
            raise NotReady(
                what="the sync",
                timeout_seconds=timeout_seconds,
                found=self._pending(),
                hint="Nothing is lost: it is sent as soon as the store takes it. See `replicad status`.",
            ) from error
        return {
            "databases": [
                {"name": followed.settings.name, "durable_txid": mark.txid, "durable_at": instant(mark.ms)}
                for followed, mark in zip(self._followed, marks, strict=True)
            ]
        }

    async def snapshot(self) -> Mapping[str, object]:
        """Take a snapshot of each database; return when it is durable."""
        manifests = await asyncio.gather(*(followed.follower.snapshot("command") for followed in self._followed))
        return {
            "databases": [
                {
                    "name": followed.settings.name,
                    "txid": manifest.txid,
                    "stored_bytes": manifest.stored_bytes,
                    "chunks": len(manifest.chunks),
                }
                for followed, manifest in zip(self._followed, manifests, strict=True)
            ]
        }

    # --- inner -------------------------------------------------------------------------------------

    async def _boot_one(self, database: DatabaseSettings, *, may_replace: bool) -> Followed:
        store = await self._store(database)
        log = get_logger(database=database.name)
        state = await self._tools.threads.run(read_state, database.path)
        clock = self._tools.clock

        async def claim() -> Owned:
            return await own(store, state, environment=os.environ, clock=clock, log=log)

        owned = await self._until_reached(claim)
        self.claimed.set()
        # Half of the program is not needed before here: loading it must not keep the store from being asked.
        from replicad.replicate.assembly import Assembly  # noqa: PLC0415

        assembly = Assembly(
            database=database,
            store=store,
            settings=self._settings,
            tools=self._tools,
            metrics=self._metrics.for_database(database.name),
            log=log,
        )
        return await self._until_reached(lambda: assembly.boot(owned, state, may_replace=may_replace))

    async def _until_reached(self, step: Callable[[], Awaitable[T]]) -> T:
        deadline = self._tools.clock.monotonic() + self._settings.boot_timeout_seconds
        while True:
            try:
                return await step()
            except StoreUnreachable as error:
                if self._tools.clock.monotonic() >= deadline:
                    raise
                self._log.warning(events.STORE_UNREACHABLE, error=str(error))
                await asyncio.sleep(_BOOT_RETRY_SECONDS)

    async def _store(self, database: DatabaseSettings) -> ObjectStore:
        if database.replica not in self._stores:
            settings = self._settings
            options = replace(
                settings.store_options(concurrency=max(settings.upload_concurrency, settings.restore_concurrency)),
                retry_seconds=min(settings.retry_timeout_seconds, settings.boot_timeout_seconds),
            )
            self._stores[database.replica] = await open_store(database.replica, options, observer=self._metrics)
        return PrefixedStore(self._stores[database.replica], f"{database.name}/")

    async def _flush_one(self, followed: Followed) -> None:
        try:
            async with asyncio.timeout(self._settings.flush_timeout_seconds):
                await followed.follower.sync()
        except (TimeoutError, ReplicadError) as error:
            ledger = followed.follower.following.ledger
            raise FinalFlushFailed(
                pending=self._pending(followed),
                database=followed.settings.path,
                store=followed.store.url,
                found=followed.follower.problem
                or str(error)
                or f"not within flush_timeout, {self._settings.flush_timeout_seconds:g} s;"
                f" the last durable transaction is {ledger.durable.txid}",
            ) from error

    def _pending(self, *chosen: Followed) -> str:
        """Say what is not durable of these databases, or of all."""
        ledgers = [followed.follower.following.ledger for followed in chosen or self._followed]
        transactions = sum(ledger.pending_transactions for ledger in ledgers)
        unread = sum(ledger.unread_bytes for ledger in ledgers)
        return f"{transactions} transactions" + (f" and {unread} bytes of WAL that were not read yet" if unread else "")

    async def _stop_following(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
