"""What can be proven of a database that is opened, and what must not be."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import apsw
import pytest

from replicad.host.files import FileIdentity
from replicad.position import NO_WAL, TXID, Epoch, Position, WALPosition
from replicad.replicate import continuity
from replicad.replicate.continuity import Continuity, Known, Opening, hashed, open_at, wal_position
from replicad.sqlite.image import Image
from replicad.sqlite.source import Source
from replicad.wal import PageTable
from tests.support.evidence import hashes_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from replicad.restore.request import Evidence


class Recorded:
    """A database whose states can be noted, and opened again later as a restarted daemon does."""

    def __init__(self, path: Path, page_size: int) -> None:
        self.path = path
        self.writer = apsw.Connection(str(path))
        self.writer.pragma("page_size", page_size)
        self.writer.pragma("journal_mode", "wal")
        self.writer.pragma("wal_autocheckpoint", 0)
        self.writer.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, v)")
        self.written = 0  # the last row's number
        self._txid = 0

    def insert(self, *numbers: int) -> None:
        """Commit rows, each by itself."""
        for number in numbers:
            self.written = number
            self.writer.execute("INSERT INTO t VALUES (?, randomblob(700))", (number,))

    def note(self) -> Known:
        """Return the present state as it would be recorded."""
        source = Source(self.path)
        try:
            index = source.hold_exactly()
            table = hashed(Image.under_pin(source, index, pages=source.page_count()))
            self._txid += 1
            position = Position(epoch=Epoch(1), txid=TXID(self._txid), checksum=table.checksum, pages=table.pages)
            return Known(position=position, ms=self._txid, wal=wal_position(source, index))
        finally:
            source.close()

    def checkpoint(self, mode: int = apsw.SQLITE_CHECKPOINT_PASSIVE) -> None:
        """Checkpoint as an application does."""
        self.writer.wal_checkpoint(mode=mode)

    def open(self, known: Sequence[Known]) -> Opening:
        """Open it and find out; the answer is held against the truth."""
        source = Source(self.path)
        try:
            opening = open_at(source, known)
            if opening.known is not None:
                found = (opening.table.checksum, opening.table.pages)
                assert found == (opening.known.position.checksum, opening.known.position.pages)
            if opening.continuity is not Continuity.AHEAD:
                assert opening.table.checksum == self.table().checksum
            return opening
        finally:
            source.close()

    def table(self) -> PageTable:
        """Return the page table of the present state, by way of SQLite alone."""
        raw = self.writer.serialize("main") or b""
        size = int(self.writer.pragma("page_size"))
        table = PageTable(size)
        pages = len(raw) // size
        table.write(range(1, pages + 1), [raw[at : at + size] for at in range(0, len(raw), size)])
        table.commit(pages)
        return table


@pytest.fixture(params=[512, 4096, 65536])
def database(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Recorded]:
    """A database with a table and nothing in it."""
    found = Recorded(tmp_path / "app.db", request.param)
    yield found
    found.writer.close()


def test_the_recorded_state(database: Recorded) -> None:
    """The state that stands here is the recorded one, wherever in file and WAL its pages are by now."""
    database.insert(1, 2, 3)
    known = database.note()
    for mode in (None, apsw.SQLITE_CHECKPOINT_PASSIVE, apsw.SQLITE_CHECKPOINT_TRUNCATE):
        if mode is not None:
            database.checkpoint(mode)
        opening = database.open([known])
        assert (opening.continuity, opening.known) == (Continuity.SAME, known)


def test_ahead_by_the_wal(database: Recorded) -> None:
    """The WAL still holds all that came after the recorded state: reading goes on right behind it."""
    database.insert(1, 2, 3)
    known = database.note()
    database.insert(4, 5)
    database.writer.execute("UPDATE t SET v = NULL WHERE n < 3")
    opening = database.open([known])
    assert (opening.continuity, opening.position) == (Continuity.AHEAD, known.wal)


def test_ahead_through_a_snapshot(database: Recorded) -> None:
    """A snapshot was stored ahead of the segment that leads to it: what came after the segment goes on from that."""
    database.insert(1, 2, 3)
    known = database.note()
    database.insert(4)
    snapshot = replace(database.note(), wal=NO_WAL)
    for further in ((), (5,), (6, 7)):
        database.insert(*further)
        opening = database.open([snapshot, known])
        expected = (Continuity.AHEAD, known) if database.written > 4 else (Continuity.SAME, snapshot)
        assert (opening.continuity, opening.known) == expected


def test_a_disk_of_before_a_snapshot(database: Recorded) -> None:
    """A disk that went back to before the newest snapshot continues nothing, written to since or not.

    Seen to fail when it went on from the segment before: the snapshot, which may have been reported durable, was then
    off the line.
    """
    database.insert(1, 2, 3)
    known = database.note()
    saved = {path: path.read_bytes() for path in (database.path, Path(f"{database.path}-wal"))}
    database.insert(4)
    snapshot = replace(database.note(), wal=NO_WAL)
    database.writer.close()
    Path(f"{database.path}-shm").unlink(missing_ok=True)
    for path, content in saved.items():
        path.write_bytes(content)
    database.writer = apsw.Connection(str(database.path))
    database.writer.pragma("wal_autocheckpoint", 0)
    assert database.open([snapshot, known]).continuity is Continuity.LOST
    assert database.open([known]).continuity is Continuity.SAME
    database.insert(5)
    assert database.open([snapshot, known]).continuity is Continuity.LOST
    assert database.open([known]).continuity is Continuity.AHEAD


def test_ahead_of_a_larger_state(database: Recorded) -> None:
    """A database that has shrunk since is told from one that never was larger."""
    database.insert(*range(50))
    database.checkpoint()
    known = database.note()
    database.writer.execute("DELETE FROM t")
    database.writer.execute("VACUUM")
    opening = database.open([known])
    assert opening.continuity is Continuity.AHEAD
    assert opening.table.pages == known.position.pages


def test_a_wal_that_began_anew_right_behind(database: Recorded) -> None:
    """When all of the recorded state was in the file as the WAL began anew, its first frame is the next one."""
    database.insert(1, 2)
    known = database.note()
    database.checkpoint(apsw.SQLITE_CHECKPOINT_RESTART)
    database.insert(3)
    opening = database.open([known])
    assert opening.continuity is Continuity.AHEAD
    assert opening.position.frame == 0
    assert opening.position.salts != known.wal.salts


def test_without_a_wal_position(database: Recorded) -> None:
    """A snapshot does not say where in the WAL it was taken; at the front of one is where it can be found."""
    database.insert(1, 2)
    database.checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)
    known = database.note()
    database.insert(3)
    assert database.open([Known(position=known.position, ms=1)]).continuity is Continuity.AHEAD


def test_the_newest_that_is_proven(database: Recorded) -> None:
    """Of several stored transactions the newest is gone on behind, none when that is nowhere to be found."""
    database.insert(1)
    database.checkpoint()
    older = database.note()
    database.insert(2)
    newer = database.note()
    database.insert(3)
    assert database.open([newer, older]).known == newer
    unknown = Known(position=Position(epoch=Epoch(1), txid=TXID(9), checksum=5, pages=3), ms=9)
    assert database.open([unknown, newer, older]).known is None


def test_a_stored_state_is_preferred_to_one_behind_it(database: Recorded) -> None:
    """When the state that stands here is stored, nothing is sent again, though an older one could be gone on behind."""
    database.insert(1)
    database.checkpoint()
    older = database.note()
    database.insert(2)
    newer = database.note()
    opening = database.open([newer, older])
    assert (opening.continuity, opening.known) == (Continuity.SAME, newer)


def lose_frames(database: Recorded, known: Known) -> None:
    """Commit something, and let the WAL begin anew over it."""
    del known
    database.insert(100)
    database.checkpoint(apsw.SQLITE_CHECKPOINT_RESTART)
    database.insert(101)


def lose_the_wal(database: Recorded, known: Known) -> None:
    """Commit something, and let it be copied to the file, and the WAL be emptied."""
    del known
    database.insert(100)
    database.checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)


def copy_what_came_after(database: Recorded, known: Known) -> None:
    """Commit something over pages of the recorded state, and let it be copied, with the WAL as it is."""
    del known
    database.writer.execute("UPDATE t SET v = randomblob(600)")
    database.checkpoint()
    database.insert(100)


def replace_the_database(database: Recorded, known: Known) -> None:
    """Make it another database of the same path."""
    del known
    size = int(database.writer.pragma("page_size"))
    database.writer.close()
    for end in ("", "-wal", "-shm"):
        Path(f"{database.path}{end}").unlink(missing_ok=True)
    database.__init__(database.path, size)  # type: ignore[misc]
    database.insert(7)


@pytest.mark.parametrize("happened", [lose_frames, lose_the_wal, copy_what_came_after, replace_the_database])
def test_what_cannot_be_proven_is_lost(database: Recorded, happened: object) -> None:
    """Where what came between cannot be told any more, nothing is claimed, though salts or sizes may look alike."""
    assert callable(happened)
    database.insert(*range(5))
    database.checkpoint()
    known = database.note()
    happened(database, known)
    opening = database.open([known])
    assert (opening.continuity, opening.known) == (Continuity.LOST, None)


def test_a_wal_position_is_not_believed_for_its_number(database: Recorded) -> None:
    """A position whose frame has another checksum, or lies behind the WAL's end, is none: salts can come again."""
    database.insert(1)
    known = database.note()
    database.insert(2, 3)
    assert database.open([known]).continuity is Continuity.AHEAD
    for wal in (
        WALPosition(salts=known.wal.salts, frame=known.wal.frame, frame_checksum=b"12345678"),
        WALPosition(salts=known.wal.salts, frame=10_000, frame_checksum=known.wal.frame_checksum),
        NO_WAL,
    ):
        assert database.open([Known(position=known.position, ms=1, wal=wal)]).continuity is Continuity.LOST


def test_a_changed_page_is_never_overlooked(database: Recorded) -> None:
    """A page that was changed past SQLite makes the proof fail, though the WAL is as it was recorded.

    Seen to fail with continuity taken from the WAL's salts and frame checksum alone.
    """
    database.insert(*range(20))
    database.checkpoint()
    known = database.note()
    database.insert(100)
    raw = bytearray(database.path.read_bytes())
    raw[-200] ^= 1
    with database.path.open("r+b") as file:
        file.write(raw)
    source = Source(database.path)
    try:
        assert open_at(source, [known]).continuity is Continuity.LOST
    finally:
        source.close()


def reopened(database: Recorded, known: Known, evidence: Evidence | None) -> tuple[Opening, int]:
    """Open it with what was known of its file; return how often it was read as well."""
    reads = 0

    def count(image: Image) -> PageTable:
        nonlocal reads
        reads += 1
        return hashed(image)

    source = Source(database.path)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(continuity, "hashed", count)
            opening = open_at(source, [known], evidence)
        if opening.continuity is not Continuity.AHEAD:
            assert opening.table.hashes() == hashes_of(database.path, opening.table.page_size)
        return opening, reads
    finally:
        source.close()


@pytest.mark.usefixtures("fine_clock")
def test_a_file_that_nobody_wrote_to_is_not_read_again(database: Recorded) -> None:
    """What the file was known to hold, it holds while it has the stamp, and nothing is in a WAL."""
    database.insert(1, 2, 3)
    database.checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)
    known = database.note()
    first, reads = reopened(database, known, None)
    assert reads == 1
    assert first.evidence is not None
    again, reads = reopened(database, known, first.evidence)
    assert (again.continuity, again.evidence, reads) == (Continuity.SAME, first.evidence, 0)


@pytest.mark.usefixtures("fine_clock")
@pytest.mark.parametrize("change", ["in the WAL", "checkpointed", "written", "replaced", "another size", "first page"])
def test_a_file_that_may_be_another_is_read(database: Recorded, change: str) -> None:
    """Whatever was written to it since, by SQLite or by somebody else, and wherever: the table is of what stands there.

    Seen to fail without each of the comparisons in `open_at` and `_known`.
    """
    database.insert(1, 2, 3)
    database.checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)
    known = database.note()
    evidence = reopened(database, known, None)[0].evidence
    assert evidence is not None
    expected = Continuity.SAME
    if change == "in the WAL":
        database.insert(4)
        expected = Continuity.AHEAD
    elif change == "checkpointed":
        database.insert(4)
        database.checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)
        expected = Continuity.LOST
    elif change == "written":
        with database.path.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"x")
        expected = Continuity.LOST
    elif change == "replaced":
        evidence = replace(evidence, stamp=replace(evidence.stamp, identity=FileIdentity(device=1, inode=1)))
    elif change == "another size":
        evidence = replace(evidence, table=PageTable.of(evidence.table.page_size, evidence.table.hashes()[:-1], 0))
    else:
        hashes = evidence.table.hashes()
        hashes[0] ^= 1
        table = PageTable.of(evidence.table.page_size, hashes, evidence.table.checksum)
        evidence = replace(evidence, table=table)
    opening, reads = reopened(database, known, evidence)
    assert (opening.continuity, reads) == (expected, 1)
