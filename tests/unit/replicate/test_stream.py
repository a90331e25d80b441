"""Transactions that are never held whole: read, sent, taken back, gone on behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import apsw
import pytest

from replicad.replicate.capture import Capture
from replicad.replicate.reading import Reached
from replicad.segment import decode, read_block
from replicad.sqlite.source import Source
from tests.support.captured import open_capture
from tests.support.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from replicad.replicate.stream import TransactionStream

SEGMENT_BYTES = 256 << 10


class Read:
    """A capture of a database from its beginning on, and the application's connection."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.writer = apsw.Connection(str(path))
        self.writer.pragma("journal_mode", "wal")
        self.writer.pragma("wal_autocheckpoint", 0)
        self.writer.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, v)")
        self.source = Source(path)
        self.clock = ManualClock()
        self.capture = open_capture(self.source, Capture, segment_bytes=SEGMENT_BYTES, clock=self.clock, first_txid=5)

    def insert(self, count: int, size_bytes: int = 10_000) -> None:
        """Commit rows as one transaction."""
        self.writer.execute("BEGIN")
        for _ in range(count):
            self.writer.execute("INSERT INTO t VALUES (NULL, randomblob(?))", (size_bytes,))
        self.writer.execute("COMMIT")

    def close(self) -> None:
        """Close both."""
        self.source.close()
        self.writer.close()


@pytest.fixture
def read(tmp_path: Path) -> Iterator[Read]:
    """A capture that has read nothing yet."""
    found = Read(tmp_path / "app.db")
    yield found
    found.close()


def applied(before: bytes, body: bytes) -> bytes:
    """Return the image that a segment makes of another, every checksum in it held against it."""
    index = decode(body, what="segment")
    size = index.header.page_size
    image = bytearray(before)
    older = b"".join(before[(pgno - 1) * size : pgno * size] for pgno in index.references)
    raw = b"".join(
        read_block(index, number, body[block.offset :][: block.stored_bytes], what="block", references=older)
        for number, block in enumerate(index.blocks)
    )
    for at, pgno in enumerate(index.pgnos):
        if len(image) < pgno * size:
            image += bytes(pgno * size - len(image))
        image[(pgno - 1) * size : pgno * size] = raw[at * size : (at + 1) * size]
    return bytes(image[: index.transactions[-1].pages * size])


def image_of(read: Read) -> bytes:
    """Return the database as a new connection finds it: in a cache, pages of the free list can be others."""
    connection = apsw.Connection(str(read.path))
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    try:
        return connection.serialize("main") or b""
    finally:
        connection.close()


def oversized(read: Read) -> TransactionStream:
    """Return the next transaction, which does not fit."""
    assert read.capture.read() is Reached.OVERSIZED
    found = read.capture.oversized()
    assert found is not None
    return found


def test_an_oversized_transaction(read: Read) -> None:
    """It becomes one segment, made of parts, that leads from the state before to the state behind."""
    before = image_of(read)
    read.insert(100)
    transaction = oversized(read)
    parts = list(transaction.parts())
    assert len(parts) > 1
    assert applied(before, b"".join(parts)) == image_of(read)
    transaction.settle()
    assert read.capture.next_txid == 6
    assert read.capture.read() is Reached.END
    read.insert(1)
    assert read.capture.read() is Reached.END
    assert read.capture.next_txid == 7


def test_small_ones_around_an_oversized_one(read: Read) -> None:
    """What was committed before it goes into a segment first; what came after is not part of it."""
    read.insert(1)
    read.insert(100)
    read.insert(1)
    assert read.capture.read() is Reached.OVERSIZED
    sealed, _ = read.capture.seal()
    assert (sealed.transactions, sealed.last_txid) == (1, 5)
    transaction = oversized(read)
    assert (transaction.key.first, transaction.key.last) == (6, 6)
    list(transaction.parts())
    transaction.settle()
    assert read.capture.read() is Reached.END
    last, _ = read.capture.seal()
    assert (last.transactions, last.last_txid) == (1, 7)


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_a_broken_upload_begins_anew(read: Read, taken: int) -> None:
    """After an upload that broke off somewhere, the same transaction is read again, byte for byte the same."""
    before = image_of(read)
    read.insert(150)
    transaction = oversized(read)
    expected = b"".join(transaction.parts())
    transaction.undo()
    parts = transaction.parts()
    for _ in range(taken):
        next(parts)
    transaction.undo()
    again = b"".join(transaction.parts())
    assert again == expected
    assert applied(before, again) == image_of(read)
    transaction.settle()
    assert read.capture.table.checksum == decode(again, what="segment").transactions[-1].checksum


def test_a_vacuum_is_one_transaction(read: Read) -> None:
    """A database that shrinks as a whole is one transaction, and the pages behind its end are gone."""
    read.insert(100)
    list((first := oversized(read)).parts())
    first.settle()
    before = image_of(read)
    read.writer.execute("DELETE FROM t WHERE n % 2")
    while read.capture.read() is Reached.OVERSIZED:
        list((deleting := oversized(read)).parts())
        deleting.settle()
    if read.capture.open_segment is not None:
        read.capture.seal()
    before = image_of(read)
    read.writer.execute("VACUUM")
    body = b"".join((vacuum := oversized(read)).parts())
    vacuum.settle()
    assert len(image_of(read)) < len(before)
    assert applied(before, body) == image_of(read)
    assert read.capture.table.pages == len(image_of(read)) // 4096


def let_go_and_change(read: Read, statement: str) -> bytes:
    """Release the pin, change the database behind the capture's back, and return what it was."""
    read.insert(30, 3000)
    assert read.capture.read() is Reached.END
    read.capture.seal()
    before = image_of(read)
    read.source.release()
    for _ in range(3):
        read.writer.execute(statement)
        read.writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    return before


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE t SET v = randomblob(3000) WHERE n = 17",
        "INSERT INTO t SELECT NULL, randomblob(3000) FROM t",
        "DELETE FROM t WHERE n > 3; VACUUM",
        "CREATE TABLE u AS SELECT * FROM t; DROP TABLE u; VACUUM",
    ],
)
def test_a_difference(read: Read, statement: str) -> None:
    """What changed unseen becomes one transaction with the pages that differ, from the state that was read last."""
    before = let_go_and_change(read, statement)
    difference = read.capture.find_difference()
    assert difference is not None
    expected = b"".join(difference.parts())
    assert applied(before, expected) == image_of(read)
    difference.undo()
    assert b"".join(difference.parts()) == expected
    difference.settle()
    assert read.capture.find_difference() is None
    read.insert(1)
    assert read.capture.read() is Reached.END


def test_no_difference(read: Read) -> None:
    """When nothing changed there is nothing to send, and reading goes on at the present position."""
    read.insert(3)
    assert read.capture.read() is Reached.END
    txid = read.capture.next_txid
    read.source.release()
    read.writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    assert read.capture.find_difference() is None
    read.insert(1)
    assert read.capture.read() is Reached.END
    assert read.capture.next_txid == txid + 1


def test_a_difference_of_the_size_alone(read: Read) -> None:
    """A database that only lost pages at its end is a transaction too: one has at least a page."""
    read.insert(30, 3000)
    read.writer.execute("PRAGMA auto_vacuum=2; VACUUM")
    read.writer.execute("DELETE FROM t WHERE n > 3")
    while read.capture.read() is not Reached.END:
        list((stream := oversized(read)).parts())
        stream.settle()
    if read.capture.open_segment is not None:
        read.capture.seal()
    before = image_of(read)
    read.source.release()
    read.writer.execute("PRAGMA incremental_vacuum")
    difference = read.capture.find_difference()
    assert difference is not None
    assert applied(before, b"".join(difference.parts())) == image_of(read)


def test_commit_times(read: Read) -> None:
    """A transaction's time is when it was first seen to be committed, however late it is read and sent."""
    read.insert(1)
    read.capture.glance()
    seen_ms = read.clock.now_ms()
    read.clock.advance(60)
    read.insert(100)
    read.capture.glance()
    later_ms = read.clock.now_ms()
    read.clock.advance(60)
    assert read.capture.read() is Reached.OVERSIZED
    sealed, _ = read.capture.seal()
    assert sealed.last_ms == seen_ms
    assert oversized(read).key.last_ms == later_ms
