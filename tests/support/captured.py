"""A capture in the test's own process, any part of it replaced by a sabotaged one; and the two that may notice.

    with Captured(path, capture=Swapped) as captured:
        captured.commit("INSERT INTO t VALUES (randomblob(9000))")
        captured.read()
        assert captured.proof_fails()       # replicad's own: a snapshot is held against the page table
        assert captured.states_differ()     # what only a test can know: which states the source really had

The application is of the same SQLite library: the POSIX locks of two libraries in one process do not see each other.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeVar

import apsw
import structlog

from replicad.errors import ProofFailed
from replicad.host.clock import SystemClock
from replicad.host.threads import Threads
from replicad.observe.metrics import Metrics
from replicad.position import TXID, Epoch
from replicad.replicate.capture import Capture
from replicad.replicate.continuity import open_at
from replicad.replicate.lineage import Lineage
from replicad.replicate.reading import Beginning, CaptureLimits, Reached
from replicad.replicate.ship import Shipper
from replicad.replicate.snapshots import Snapshots
from replicad.segment import SegmentHeader, decode
from replicad.sqlite.source import Source
from replicad.sqlite.wal_file import WALFile
from replicad.store.memory import MemoryStore
from replicad.wal import PageTable
from tests.support.oracle import State

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from replicad.host.clock import Clock
    from replicad.replicate.pinned import Pinned

_EPOCH = Epoch(1)
_DATABASE_ID = "captured"

C = TypeVar("C", bound=Capture)


def open_capture(  # noqa: PLR0913 - what differs from test to test
    source: Source,
    kind: Callable[..., C],
    *,
    segment_bytes: int,
    clock: Clock,
    first_txid: int = 1,
    table: type[PageTable] = PageTable,
) -> C:
    """Open a capture that has read nothing yet, of the state that the source has now; its pin is held."""
    opening = open_at(source, [])
    header = SegmentHeader(
        database_id=_DATABASE_ID,
        epoch=_EPOCH,
        page_size=source.page_size,
        first_txid=TXID(first_txid),
        checksum_before=opening.table.checksum,
        pages_before=opening.table.pages,
    )
    beginning = Beginning(table=_as(table, opening.table), position=opening.position, header=header)
    limits = CaptureLimits(segment_bytes=segment_bytes, compression_level=1)
    return kind(source, beginning, limits=limits, clock=clock)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a capture is put together from."""

    capture: type[Capture] = Capture
    source: type[Source] = Source
    wal: type[WALFile] = WALFile
    table: type[PageTable] = PageTable


class Captured:
    """One database, its application, and a capture beside it. Use as a context manager."""

    def __init__(self, path: Path, parts: Parts) -> None:
        """Begin to follow a database that was just made."""
        self.application = apsw.Connection(str(path))
        self.application.pragma("journal_mode", "wal")
        self.application.pragma("wal_autocheckpoint", 0)
        self.application.pragma("cache_size", 10)  # what does not fit is in the WAL before the commit
        self.application.execute("CREATE TABLE t (a)")
        self.source = parts.source(path)
        self.source.wal = parts.wal(path)
        self.capture = open_capture(
            self.source, parts.capture, segment_bytes=8 << 20, clock=SystemClock(), first_txid=2, table=parts.table
        )
        self._states: list[tuple[int, int]] = []  # of the source, after each of its transactions
        self._captured: list[tuple[int, int]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.source.close()
        self.application.close()

    # --- the application -----------------------------------------------------------------------------

    def commit(self, *statements: str) -> None:
        """Commit each statement by itself, and note the state it made."""
        for statement in statements:
            self.application.execute(statement)
            state, image, size = State(self.source.page_size), self.application.serialize("main"), self.source.page_size
            for number in range(len(image) // size):
                state.write(number + 1, image[number * size : (number + 1) * size])
            self._states.append((state.checksum, state.pages))

    def roll_back(self, *statements: str) -> None:
        """Let a transaction do something, and undo it."""
        self.application.execute("BEGIN")
        for statement in statements:
            self.application.execute(statement)
        self.application.execute("ROLLBACK")

    # --- the capture ---------------------------------------------------------------------------------

    def read(self) -> None:
        """Read what is committed."""
        assert self.capture.read() is Reached.END
        self.take()

    def take(self) -> None:
        """Take what was read, as it would be sent."""
        if self.capture.open_segment is not None:
            segment, position = self.capture.seal()
            index = decode(b"".join([*segment.take(), *segment.finish(position)]), what="the segment")
            self._captured += [(transaction.checksum, transaction.pages) for transaction in index.transactions]

    # --- who notices ---------------------------------------------------------------------------------

    def proof_fails(self) -> bool:
        """Return whether a snapshot that is taken now finds that the database is not what capture made of it."""
        try:
            asyncio.run(self._snapshot())
        except ProofFailed:
            return True
        finally:
            self.take()
        return False

    async def _snapshot(self) -> None:
        threads = Threads("sabotage", 1)
        metrics = Metrics(version="0", wall_seconds=lambda: 0.0).for_database("app.db")
        shipper = Shipper(MemoryStore(), _Leave(), threads, metrics, structlog.get_logger())
        lineage = Lineage(database_id=_DATABASE_ID, epoch=_EPOCH, claim_id="")
        snapshots = Snapshots(shipper, lineage, threads, metrics, concurrency=1, compression_level=1)
        try:
            await snapshots.store(_Pins(self.capture, threads), reason="proof", now_ms=1)
        finally:
            await threads.close()

    def states_differ(self) -> bool:
        """Return whether the transactions that were captured are others than those that were committed."""
        return self._captured != self._states


class _Leave:
    """Nobody else is there: whatever is stored counts."""

    async def until_may_ship(self) -> None:
        pass

    async def still_owned(self) -> bool:
        return True


class _Pins:
    """Holds states still for a snapshot; nobody wants a pin back."""

    def __init__(self, capture: Capture, threads: Threads) -> None:
        self.let_go = asyncio.Event()
        self._capture = capture
        self._threads = threads

    async def take(self) -> Pinned:
        pinned = await self._threads.run(self._capture.pin_state, skip=False)
        assert pinned is not None
        return pinned

    async def release(self, pinned: Pinned) -> None:
        await self._threads.run(pinned.release)


def _as(kind: type[PageTable], table: PageTable) -> PageTable:
    other = kind(table.page_size)
    other.checksum, other._pages, other._hashes = table.checksum, table._pages, table._hashes
    return other
