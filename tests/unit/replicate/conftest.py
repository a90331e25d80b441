"""A database that is followed within the test's own process, into a store in memory that can fail."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import apsw
import pytest
import structlog

from replicad.config import load
from replicad.host.clock import SystemClock
from replicad.host.threads import Threads
from replicad.host.watcher import Watcher
from replicad.mirror.side import Side
from replicad.observe.metrics import Metrics
from replicad.ownership.claim import Me
from replicad.replicate.assembly import assemble
from replicad.replicate.boot import LocalFile
from replicad.replicate.mirror import Mirror
from replicad.replicate.notes import Notes, NotingStore
from replicad.replicate.office import Office
from replicad.replicate.protocol import Driver
from replicad.replicate.station import Station
from replicad.replicate.tenure import Tenure
from replicad.replicate.tools import Tools
from replicad.store.database import contents
from replicad.store.memory import MemoryStore
from tests.support.evidence import fine_clock
from tests.support.faulty_store import Call, FaultyStore
from tests.support.no_host import NoHost
from tests.support.oracle import StoredHistory
from tests.support.scene import ask
from tests.support.waiting import wait_until_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, MutableMapping
    from typing import Any

    from replicad.encryption.keys import EncryptionKey
    from replicad.replicate.assembly import Followed
    from replicad.replicate.follower import Follower
    from replicad.replicate.own import Owned
    from replicad.replicate.state_file import StateFile
    from replicad.store.protocol import ObjectStore


__all__ = ["fine_clock"]

_START_SECONDS = 20.0
COMPANIONS = ("", "-wal", "-shm", "-replicad")


class Gate(FaultyStore):
    """A store of which one kind of request can be kept away."""

    def __init__(self, store: ObjectStore | None = None) -> None:
        super().__init__(store or MemoryStore())
        self.shut: tuple[str, str] | None = None  # verb, and what the key contains
        self.defective = False  # raises what no store may raise

    async def _begin(self, verb: str, key: str, special: tuple[str, ...]) -> str:
        if self.defective:
            raise ZeroDivisionError
        if self.shut is not None and verb == self.shut[0] and self.shut[1] in key:
            self.calls.append(Call(verb=verb, key=key, fault="shut"))
            self._unreached(verb, key, "no connection", sent=False)
        return await super()._begin(verb, key, special)


async def _nothing_to_stop() -> None:
    """There is no application but the test's own connection."""


class Stage:
    """One database, its application (a connection of SQLite's, the same library as ours), one follower, one store.

    In one process there may be only one SQLite library: a second one's locks would be dropped by the first one's.
    """

    def __init__(self, path: Path, tools: Tools, lines: list[MutableMapping[str, Any]]) -> None:
        self.path = path
        self.store = Gate()
        self.tools = tools
        self.lines = lines
        self.flags = {
            "database": str(path),
            "replica": "memory://stage",
            "sync_interval": "0s",
            "handover_poll_interval": "100ms",
            "handover_timeout": "1s",
            "boot_timeout": "0s",
        }
        self.stop_application = _nothing_to_stop
        self.mirrors: list[Mirror] = []
        self.keys: tuple[EncryptionKey, ...] = ()  # none: nothing is encrypted
        self.metrics = Metrics(version="0", wall_seconds=lambda: 0.0).for_database("app.db")
        self._connection: apsw.Connection | None = None
        self.office: Office | None = None
        self._followed: Followed | None = None
        self._task: asyncio.Task[None] | None = None

    # --- the application -----------------------------------------------------------------------------

    @property
    def connection(self) -> apsw.Connection:
        """The application's connection; the database is made in WAL mode when there is none."""
        if self._connection is None:
            self._connection = apsw.Connection(str(self.path))
            self._connection.set_busy_timeout(5000)
            self._connection.pragma("synchronous", 0)
            if not self._connection.execute("SELECT count(*) FROM sqlite_schema").get:
                self._connection.pragma("journal_mode", "wal")
                self._connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, v)")
        return self._connection

    def insert(self, *numbers: int, size_bytes: int = 100) -> None:
        """Commit a row for each number by itself."""
        for number in numbers:
            self.connection.execute("INSERT INTO t VALUES (?, randomblob(?))", (number, size_bytes))

    def fill(self, first: int, rows: int, *, size_bytes: int = 10_000) -> None:
        """Commit many rows at once."""
        self.connection.execute("BEGIN")
        self.insert(*range(first, first + rows), size_bytes=size_bytes)
        self.connection.execute("COMMIT")

    async def truncate(self, busy_timeout_seconds: float = 20.0) -> float:
        """Checkpoint with all that it waits for; return how long that took. It fails when the timeout passes."""
        self.connection.set_busy_timeout(int(busy_timeout_seconds * 1000))
        checkpoint, began = self.connection.wal_checkpoint, self.tools.clock.monotonic()
        assert await self.tools.threads.run(checkpoint, mode=apsw.SQLITE_CHECKPOINT_TRUNCATE) == (0, 0)
        return self.tools.clock.monotonic() - began

    def lose_disk(self, *companions: str) -> None:
        """Delete the database and all that is beside it, or some of that; the application has ended."""
        self.close()
        for companion in companions or COMPANIONS:
            Path(f"{self.path}{companion}").unlink(missing_ok=True)

    def close(self) -> None:
        """Close the application's connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # --- the follower ----------------------------------------------------------------------------------

    @property
    def follower(self) -> Follower:
        """The one that runs."""
        assert self.office is not None
        return self.office.followed.follower

    def station(self) -> Station:
        """Return what stays the same, whoever owns the database."""
        settings = load(flags=self.flags, environ={}, required=()).settings
        notes = [mirror.notes for mirror in self.mirrors]
        noted: ObjectStore = NotingStore(self.store, notes) if self.mirrors else self.store
        return Station(
            database=settings.databases[0],
            store=contents(noted, self.keys) if self.keys else noted,
            settings=settings,
            tools=self.tools,
            metrics=self.metrics,
            log=structlog.get_logger(),
            mirrors=tuple(self.mirrors),
        )

    def mirror(self, there: ObjectStore, *, limit: int = 4096) -> Mirror:
        """Keep a mirror in a store, from the next start on."""
        side = Side.of(there, self.keys) if self.keys else Side.plain(there)

        async def open_there() -> Side:
            return side

        notes = Notes(self.tools.clock.now_ms, limit=limit)
        found = Mirror(
            f"{there.url}-{len(self.mirrors)}",
            Side.of(self.store, self.keys) if self.keys else Side.plain(self.store),
            open_there,
            notes,
            threads=self.tools.background,
            clock=self.tools.clock,
            metrics=self.metrics,
            log=structlog.get_logger(),
        )
        self.mirrors.append(found)
        return found

    async def assemble(self, owned: Owned, state: StateFile) -> Followed:
        """Bring file and history together in an epoch that was claimed by whoever calls this."""
        station, me = self.station(), Me(id=owned.claim_id, instance="here")
        driver = Driver(station.store, self.tools.clock, station.log, self.metrics, host=NoHost(), fencing="auto")
        tenure = Tenure(driver, owned, me, self.metrics, station.log)
        return await assemble(station, owned, tenure, LocalFile(state=state, may_replace=True))

    async def boot(self, *, may_replace: bool = True) -> Followed:
        """Claim, and bring file and history together."""
        station = self.station()
        self.office = Office(station, {}, changed=lambda: None, stop_application=self.stop_application)
        try:
            await self.office.boot(may_replace=may_replace, claimed=lambda: None)
        except BaseException:
            await self.office.close()
            raise
        self._followed = self.office.followed
        return self._followed

    async def start(self) -> None:
        """Boot, and follow until `stop`."""
        followed = await self.boot()
        self._task = asyncio.create_task(followed.follower.run())
        if followed.booted.opened is not None:
            async with asyncio.timeout(_START_SECONDS):
                await followed.follower.until_capturing()

    async def serve(self, *, may_replace: bool = True) -> None:
        """Boot, follow, and hand over when asked, as the daemon does, until `stop`."""
        followed = await self.boot(may_replace=may_replace)

        async def run(office: Office) -> None:
            async with asyncio.TaskGroup() as group:
                office.follow(group)
                await asyncio.Event().wait()

        assert self.office is not None
        self._task = asyncio.create_task(run(self.office))
        if followed.booted.opened is not None:
            async with asyncio.timeout(_START_SECONDS):
                await followed.follower.until_capturing()

    async def begin(self) -> None:
        """Bring it to where a snapshot and a segment are stored."""
        self.insert(0)
        await self.start()
        await self.until("snapshot_stored")
        self.insert(1)
        await self.sync()

    async def stop(self) -> None:
        """Stop following, as a crash does: nothing is flushed and no end stored."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        if self.office is not None and self.office.is_booted:
            self._followed = self.office.followed
        if self._followed is not None and self._followed.booted.opened is not None:
            await self.tools.threads.run(self._followed.booted.opened.source.close)
        if self.office is not None:
            await self.office.close()
        self._followed = None

    async def sync(self, timeout_seconds: float = 20.0) -> int:
        """Return the TXID up to which all is durable."""
        async with asyncio.timeout(timeout_seconds):
            return (await self.follower.sync()).txid

    def found(self, event: str) -> list[MutableMapping[str, Any]]:
        """Return the log lines with this event."""
        return [line for line in self.lines if line["event"] == event]

    async def until(self, event: str, count: int = 1) -> None:
        """Wait for an event."""
        await wait_until_async(lambda: len(self.found(event)) >= count)

    # --- the store -----------------------------------------------------------------------------------

    async def objects(self) -> dict[str, bytes]:
        """Return all that is stored."""
        store = self.store.store
        return {found.key: await store.get(found.key) async for found in store.list("")}

    async def states(self) -> dict[int, list[int]]:
        """Return the rows of every state that can be restored; everything recorded about it is checked."""
        history = StoredHistory(await self.objects())
        return {txid: ask(bytes(state.image), "SELECT n FROM t ORDER BY n") for txid, state in history.states()}

    async def check_newest(self) -> int:
        """Hold the newest stored state against the database; return its transaction."""
        txid, state = StoredHistory(await self.objects()).newest()
        connection = apsw.Connection(str(self.path))  # a new one: in a cache, pages of the free list can be others
        try:
            assert bytes(state.image) == connection.serialize("main")
        finally:
            connection.close()
        return txid


@pytest.fixture
async def tools() -> AsyncIterator[Tools]:
    """Clock, threads and a watcher."""
    found = Tools(
        clock=SystemClock(),
        threads=Threads("test", 4),
        background=Threads("test-background", 2),
        watcher=Watcher(asyncio.get_running_loop()),
    )
    yield found
    await found.watcher.close()
    await found.threads.close()
    await found.background.close()


@pytest.fixture
def lines() -> Iterator[list[MutableMapping[str, Any]]]:
    """What is logged."""
    with structlog.testing.capture_logs() as found:
        yield found


@pytest.fixture
async def stage(tmp_path: Path, tools: Tools, lines: list[MutableMapping[str, Any]]) -> AsyncIterator[Stage]:
    """A stage; whatever runs on it at the end is stopped."""
    found = Stage(tmp_path / "app.db", tools, lines)
    yield found
    await found.stop()
    found.close()
    for line in lines:
        print(line)  # noqa: T201 - pytest shows it when the test fails
