"""Opening one database: waiting until it is there, making it one with a WAL, and pinning it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from replicad.errors import DatabaseUnusable, FileUnusable
from replicad.observe import events
from replicad.replicate.opened import open_source
from replicad.sqlite.connection import convert_to_wal, journal_mode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from replicad.replicate.continuity import Known
    from replicad.replicate.following import Following
    from replicad.replicate.opened import Opened

RETRY_SECONDS = 1.0
"""Before an unusable database is looked at again."""

_APPEARING_SECONDS = 0.01  # until a database that has just been made is noticed
_BUSY_RETRY_SECONDS = 0.2  # before the switch to WAL is tried again


class Opener:
    """Opens the database of one follower, again and again.

    Args:
        following: the database.
        opened: it as boot opened it, None when it did not exist then.
        absent: is set while there is no database, and it is waited for.
    """

    def __init__(self, following: Following, *, opened: Opened | None, absent: asyncio.Event) -> None:
        self.problem: str | None = None  # why the database is not followed now
        self._following = following
        self._opened = opened
        self._absent = absent
        self._look_again = asyncio.Event()  # whether the awaited database is there now

    async def open(self, known: Sequence[Known]) -> Opened:
        """Return the database opened, its pin held; waits for one that can be. `known`: see `open_source`."""
        return await self._take_opened() or await self._open(known)

    async def is_there(self) -> bool:
        """Return whether there is a database after all, while it is awaited; it is about to be opened then."""
        if not await self._following.tools.threads.run(_is_there, self._following.path):
            return False
        self._look_again.set()
        await asyncio.sleep(_APPEARING_SECONDS)
        return True

    def say_failed(self, error: BaseException) -> None:
        """Note why the database is not followed; say it when it is something else than before."""
        self._following.metrics.errors[type(error).__name__] += 1
        if self.problem != str(error):
            self.problem = str(error)
            self._following.log.error(events.DATABASE_UNUSABLE, error=str(error))

    async def _take_opened(self) -> Opened | None:
        """Return the database as boot opened it; None when there was none, or when it is still to be converted."""
        opened, self._opened = self._opened, None
        if opened is None or opened.source.is_wal or self._following.settings.wal == "keep":
            return opened
        await self._following.tools.threads.run(opened.source.close)  # the application was too busy for it at boot
        return None

    async def _open(self, known: Sequence[Known]) -> Opened:
        following, threads = self._following, self._following.tools.threads
        await self._until_there()
        while True:
            try:
                if await threads.run(self._make_wal):
                    opened = await threads.run(open_source, following.path, known)
                    self.problem = None
                    return opened
                await asyncio.sleep(_BUSY_RETRY_SECONDS)
            except (DatabaseUnusable, FileUnusable) as error:
                self.say_failed(error)
                await asyncio.sleep(RETRY_SECONDS)
                await self._until_there()

    def _make_wal(self) -> bool:
        path = self._following.path
        if self._following.settings.wal == "keep" or journal_mode(path) == "wal":
            return True
        if convert_to_wal(path):
            self._following.log.info(events.WAL_CONVERTED, path=str(path))
            return True
        return False

    async def _until_there(self) -> None:
        """Wait for a database file that is not empty."""
        path, run, changed = self._following.path, self._following.tools.threads.run, self._look_again
        if await run(_is_there, path):
            return
        self._following.log.info(events.DATABASE_AWAITED, path=str(path))
        self._absent.set()
        folder = await run(path.parent.resolve)
        watch = self._following.tools.watcher.watch(folder, (path.name,), changed)
        try:
            while True:
                watch.arm()
                if await run(_is_there, path):
                    break
                changed.clear()
                try:
                    async with asyncio.timeout(self._following.settings.safety_poll_interval_seconds):
                        await changed.wait()
                except TimeoutError:
                    continue
        finally:
            watch.disarm()
            self._absent.clear()
        self._following.log.info(events.DATABASE_FOUND, path=str(path))


def _is_there(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False
