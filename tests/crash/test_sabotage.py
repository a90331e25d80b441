"""What the pin protocol is for, shown by leaving it out."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import apsw

from replicad.host.clock import SystemClock
from replicad.position import TXID, Epoch
from replicad.replicate.capture import Beginning, Capture, CaptureLimits, Reached
from replicad.replicate.continuity import hashed, open_at
from replicad.segment import SegmentHeader
from replicad.sqlite.image import Image
from replicad.sqlite.source import Source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Swapped(Capture):
    """Lets the old pin go before everything up to the next one's mark was read: steps 1 and 4 swapped."""

    between: Callable[[], None]

    def move_pin(self, *, segments: int = 1) -> bool:
        """Move the pin, with a gap between release and read in which the application goes on."""
        self.source.release()
        self.between()
        self.source.hold()
        return self.read(segments=segments) is Reached.END


class Faithful(Swapped):
    """The same gap, but with the protocol as it is."""

    def move_pin(self, *, segments: int = 1) -> bool:
        """Let the application go on, then move the pin as `Capture` does."""
        self.between()
        return Capture.move_pin(self, segments=segments)


def differs(path: Path, kind: type[Swapped]) -> bool:
    """Return whether a capture that moves its pin beside a busy application has missed anything."""
    # Of the same SQLite library: the POSIX locks of two libraries in one process would not see each other.
    application = apsw.Connection(str(path))
    application.pragma("journal_mode", "wal")
    application.execute("CREATE TABLE t (a)")
    application.execute("CREATE TABLE counter (n)")
    application.execute("INSERT INTO counter VALUES (0)")
    source = Source(path)
    opening = open_at(source, [])
    header = SegmentHeader(
        database_id="sabotage",
        epoch=Epoch(1),
        page_size=source.page_size,
        first_txid=TXID(2),
        checksum_before=opening.table.checksum,
        pages_before=opening.table.pages,
    )
    beginning = Beginning(table=opening.table, position=opening.position, header=header)
    limits = CaptureLimits(segment_bytes=8 << 20, compression_level=1)
    capture = kind(source, beginning, limits=limits, clock=SystemClock())

    def go_on() -> None:
        application.execute("INSERT INTO t VALUES (randomblob(20000))")  # nobody has read this
        application.set_busy_timeout(0)
        with contextlib.suppress(apsw.BusyError):
            application.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
        application.execute("UPDATE counter SET n = n + 1")  # and this begins the WAL anew, if it may

    capture.between = go_on
    try:
        for _ in range(3):
            assert capture.move_pin()
        assert capture.read() is Reached.END
        image = Image.under_pin(source, source.index(), pages=source.page_count())
        seen = hashed(image)
        return (seen.checksum, seen.pages) != (capture.table.checksum, capture.table.pages)
    finally:
        source.close()
        application.close()


def test_releasing_before_reading_is_caught(tmp_path: Path) -> None:
    """With steps 1 and 4 of the pin protocol swapped, frames disappear unread, and the checksum shows it."""
    assert differs(tmp_path / "swapped.db", Swapped)


def test_reading_before_releasing_misses_nothing(tmp_path: Path) -> None:
    """The same application beside the protocol as it is: every frame was read, the checksums agree."""
    assert not differs(tmp_path / "faithful.db", Faithful)
