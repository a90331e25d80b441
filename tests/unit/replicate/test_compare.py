"""Capture by comparison: a database that stays in a rollback-journal mode."""

from __future__ import annotations

from typing import TYPE_CHECKING

import apsw
import pytest

from replicad.plan.checkpoint import CheckpointLimits
from replicad.position import NO_WAL
from replicad.replicate.beat import Wishes
from replicad.replicate.compare import ComparingBeat, ComparingCapture
from replicad.replicate.pinned import StateMoved
from replicad.replicate.reading import Reached
from replicad.replicate.snapshots import _read_proven
from replicad.sqlite.source import Source
from tests.support.captured import open_capture
from tests.support.clock import ManualClock
from tests.unit.replicate.test_stream import applied

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Compared:
    """A capture by comparison, and the application's connection."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.writer = apsw.Connection(str(path))
        self.writer.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, v); CREATE INDEX i ON t (v)")
        self.source = Source(path)
        self.capture = open_capture(self.source, ComparingCapture, segment_bytes=256 << 10, clock=ManualClock())

    def insert(self, count: int, size_bytes: int = 100) -> None:
        """Commit rows as one transaction."""
        self.writer.execute("BEGIN")
        for _ in range(count):
            self.writer.execute("INSERT INTO t VALUES (NULL, randomblob(?))", (size_bytes,))
        self.writer.execute("COMMIT")

    def image(self) -> bytes:
        """Return the database as a new connection finds it: in a cache, pages of the free list can be others."""
        connection = apsw.Connection(str(self.path))
        try:
            return connection.serialize("main") or b""
        finally:
            connection.close()

    def sealed(self) -> bytes:
        """Return what was captured as a segment."""
        segment, _ = self.capture.seal()
        return b"".join(segment.finish(NO_WAL))

    def close(self) -> None:
        """Close both."""
        self.source.close()
        self.writer.close()


@pytest.fixture
def compared(tmp_path: Path) -> Iterator[Compared]:
    """A capture that has read nothing yet."""
    found = Compared(tmp_path / "app.db")
    yield found
    found.close()


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO t VALUES (1000, 'x')",
        "UPDATE t SET v = randomblob(50) WHERE n = 7",
        "DELETE FROM t WHERE n < 20; VACUUM",
        "CREATE TABLE u AS SELECT * FROM t",
        "DROP INDEX i",
    ],
)
def test_a_change_is_a_transaction(compared: Compared, statement: str) -> None:
    """A commit becomes a transaction of the pages that differ, and the same state is not captured twice."""
    compared.insert(50)
    assert compared.capture.read() is Reached.END
    compared.sealed()
    before = compared.image()
    compared.writer.execute(statement)
    assert compared.capture.changed()
    assert compared.capture.read() is Reached.END
    assert applied(before, compared.sealed()) == compared.image()
    assert not compared.capture.changed()
    assert compared.capture.read() is Reached.END
    assert compared.capture.open_segment is None


def test_commits_between_two_looks(compared: Compared) -> None:
    """What was committed between two looks is one transaction: the state is what is captured, not its history."""
    for _ in range(5):
        compared.insert(1)
    txid = compared.capture.next_txid
    assert compared.capture.read() is Reached.END
    assert compared.capture.next_txid == txid + 1


def test_nothing_is_locked_between_two_looks(compared: Compared) -> None:
    """The application commits whenever it wants: no lock outlives a look."""
    compared.writer.set_busy_timeout(0)
    for _ in range(3):
        compared.insert(2)
        assert compared.capture.read() is Reached.END
    compared.writer.execute("BEGIN EXCLUSIVE; COMMIT")


def test_an_application_in_the_middle_of_a_commit(compared: Compared) -> None:
    """While the application keeps everybody out, the look is put off: half a commit is never read."""
    for connection in compared.source._connections:
        connection.set_busy_timeout(0)
    before = compared.capture.next_txid
    compared.insert(1)
    compared.writer.execute("BEGIN EXCLUSIVE; INSERT INTO t VALUES (NULL, 'x')")
    mark = compared.capture.mark_end()
    assert compared.capture.read() is Reached.END
    assert compared.capture.next_txid == before
    assert not compared.capture.has_read(mark)
    compared.writer.execute("COMMIT")
    assert compared.capture.read() is Reached.END
    assert compared.capture.has_read(mark)
    assert compared.capture.next_txid == before + 1


def test_a_mark_is_passed_by_a_later_look(compared: Compared) -> None:
    """What was committed when a mark was made has been read once a look behind it found nothing new, or took it in."""
    compared.insert(1)
    mark = compared.capture.mark_end()
    assert not compared.capture.has_read(mark)
    compared.capture.read()
    assert compared.capture.has_read(mark)
    later = compared.capture.mark_end()
    assert not compared.capture.has_read(later)
    compared.capture.read()
    assert compared.capture.has_read(later)


def test_a_difference_too_large_for_memory(compared: Compared) -> None:
    """It waits in a file on the disk, which is gone afterwards; the lock is not held while it is sent."""
    before = compared.image()
    compared.insert(100, 8000)
    assert compared.capture.read() is Reached.OVERSIZED
    transaction = compared.capture.oversized()
    assert transaction is not None
    expected = compared.image()
    compared.writer.set_busy_timeout(0)
    compared.insert(1)
    parts = list(transaction.parts())
    assert applied(before, b"".join(parts)) == expected
    transaction.undo()
    assert list(transaction.parts()) == parts
    transaction.settle()
    assert compared.capture.changed(), "what was committed meanwhile is the next one"
    assert compared.capture.read() is Reached.END
    assert applied(expected, compared.sealed()) == compared.image()
    assert [file.name for file in compared.path.parent.iterdir()] == ["app.db"]


def test_a_snapshot_of_a_state_that_went_on(compared: Compared) -> None:
    """A snapshot's pieces are proven one by one: a commit in between is noticed, and nothing false is stored."""
    compared.insert(600, 8000)
    large = compared.capture.oversized()
    assert large is not None
    large.settle()
    pinned = compared.capture.pin_state(skip=False)
    assert pinned is not None
    _read_proven(pinned, 0, 256)
    compared.writer.execute("UPDATE t SET v = randomblob(8000) WHERE n = 500")
    with pytest.raises(StateMoved):
        [_read_proven(pinned, number, 256) for number in range(pinned.table.pages // 256 + 1)]
    pinned.release()
    compared.writer.execute("BEGIN EXCLUSIVE; COMMIT")


def test_a_state_that_is_being_changed_is_not_pinned(compared: Compared) -> None:
    """While there is something that was not read, there is no state to take a snapshot of."""
    for connection in compared.source._connections:
        connection.set_busy_timeout(0)
    compared.insert(1)
    compared.writer.execute("BEGIN EXCLUSIVE; INSERT INTO t VALUES (NULL, 'x')")
    assert compared.capture.pin_state(skip=False) is None
    compared.writer.execute("ROLLBACK")


@pytest.mark.parametrize("statement", ["PRAGMA journal_mode=wal", "PRAGMA page_size=1024; VACUUM"])
def test_another_form(compared: Compared, statement: str) -> None:
    """A database that was given another form is not compared any more: it has to be opened anew."""
    beat = ComparingBeat(compared.capture, CheckpointLimits(room_bytes=1 << 20), ManualClock())
    compared.insert(5, 3000)
    assert not beat.round(Wishes()).replaced
    compared.writer.execute(statement)
    compared.insert(1)
    assert beat.round(Wishes()).replaced
    before = compared.capture.next_txid
    assert compared.capture.read() is Reached.END
    assert compared.capture.next_txid == before
