from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import apsw
import pytest

from replicad.sqlite import source as source_module
from replicad.sqlite.image import Image
from replicad.sqlite.source import Source, begin_read
from tests.unit.sqlite.conftest import Application

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def source(database: Path) -> Iterator[Source]:
    """The database as capture has it open; no pin is held."""
    found = Source(database)
    yield found
    found.close()


def salts_of(database: Path) -> bytes:
    """Return the salts in the WAL's header."""
    return Path(f"{database}-wal").read_bytes()[16:24]


def test_index(source: Source, application: Application, database: Path) -> None:
    """The index tells how many frames are committed, how many of them are in the file, and of which WAL that is."""
    assert source.index().frames == 0
    application.run("INSERT INTO t VALUES (4, 'd')")
    application.run("INSERT INTO t VALUES (5, 'e')")
    found = source.index()
    assert (found.frames, found.backfilled, found.salts) == (2, 0, salts_of(database))
    application.run("BEGIN")
    application.run("INSERT INTO t VALUES (6, 'f')")
    assert source.index() == found, "what is not committed does not count"
    application.run("COMMIT")
    assert source.backfill()
    assert (source.index().frames, source.index().backfilled) == (3, 3)


def test_a_pin_keeps_frames(source: Source, application: Application, database: Path) -> None:
    """While a pin on a frame is held, no checkpoint of anybody begins the WAL anew; without it, the next one does."""
    application.run("INSERT INTO t VALUES (4, 'd')")
    source.hold()
    before = salts_of(database)
    for _ in range(3):
        application.run("INSERT INTO t VALUES (NULL, 'x')")
        application.run("PRAGMA wal_checkpoint(TRUNCATE)")
    assert salts_of(database) == before
    assert source.index().frames == 4
    source.release()
    application.run("PRAGMA wal_checkpoint(RESTART)")
    application.run("INSERT INTO t VALUES (NULL, 'x')")
    assert salts_of(database) != before


def test_a_pin_on_mark_0_lets_the_wal_begin_anew_once(source: Source, application: Application, database: Path) -> None:
    """With everything copied, a pin lets a writer begin the WAL anew once, and never again: nothing more is copied."""
    application.run("INSERT INTO t VALUES (4, 'd')")
    assert source.backfill()
    source.hold()
    seen = {salts_of(database)}
    for _ in range(5):
        application.run("INSERT INTO t VALUES (NULL, 'x')")
        application.run("PRAGMA wal_checkpoint(RESTART)")
        seen.add(salts_of(database))
    assert len(seen) == 2
    assert (source.index().frames, source.index().backfilled) == (5, 0)


def test_whether_a_pin_may_be_on_mark_0(source: Source, application: Application) -> None:
    """It is said of each pin, whatever is committed and copied around its move, and only where it can be so."""

    def moved() -> bool:
        source.hold_next()
        source.release_previous()
        frames, copied = source.index().frames, source.index().backfilled
        source.backfill()
        could_copy = source.index().backfilled > copied
        assert source.may_be_on_zero or could_copy or frames == copied
        return source.may_be_on_zero

    source.hold()
    assert source.may_be_on_zero, "nobody has looked"
    application.run("INSERT INTO t VALUES (4, 'd')")
    assert not moved()
    assert moved(), "everything is copied by now"
    application.run("INSERT INTO t VALUES (5, 'e')")
    assert not moved()
    source.release()
    source.hold_exactly()
    assert source.may_be_on_zero, "everything was copied when it was taken"
    source.release()
    application.run("INSERT INTO t VALUES (6, 'f')")
    source.hold_exactly()
    assert not source.may_be_on_zero


def test_what_happens_around_a_pin_that_is_taken(
    source: Source, application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint that ends between the look in front of a pin and the pin puts it on mark 0, a commit does not.

    And a WAL that begins anew behind the pin says nothing against it: only under mark 0 it can.
    """
    begin = source_module._begin

    def moved(*, before: Callable[[], object] = int, behind: Callable[[], object] = int) -> bool:
        def beside(connection: apsw.Connection) -> None:
            before()
            begin(connection)
            behind()

        monkeypatch.setattr(source_module, "_begin", beside)
        source.hold_next()
        source.release_previous()
        return source.may_be_on_zero

    def commit() -> None:
        application.run("INSERT INTO t VALUES (NULL, 'x')")

    commit()
    source.hold()
    assert not moved(before=commit, behind=commit)
    assert not moved()
    assert moved(before=source.backfill)
    salts = source.index().salts
    assert moved(behind=commit)
    assert source.index().salts != salts


def test_the_pin_moves_without_a_gap(source: Source, application: Application) -> None:
    """The next pin is held before the old one goes, and sees what was committed until then."""
    source.hold()
    assert source.page_count() == 2
    application.run("INSERT INTO t VALUES (NULL, zeroblob(20000))")
    source.hold_next()
    assert source.page_count() == 2, "the old one is still the one that counts"
    source.release_previous()
    assert source.page_count() > 2
    source.hold_next()
    source.drop_next()
    assert source.page_count() > 2


def test_a_pin_that_could_not_be_had(tmp_path: Path) -> None:
    """After an attempt that failed the next one succeeds: no half a transaction is left open.

    Seen to fail without the ROLLBACK: every later attempt found a transaction within a transaction.
    """
    path = tmp_path / "app.db"
    writer = apsw.Connection(str(path))
    writer.execute("CREATE TABLE t (n)")
    source = Source(path)
    for connection in source._connections:
        connection.set_busy_timeout(0)
    try:
        writer.execute("BEGIN EXCLUSIVE")
        for attempt in (source.hold, source.hold_next, lambda: begin_read(source._checkpointer)):
            with pytest.raises(apsw.BusyError):
                attempt()
        writer.execute("COMMIT")
        source.hold()
        source.hold_next()
        source.release_previous()
        begin_read(source._checkpointer)
    finally:
        source.close()
        writer.close()


def test_an_exact_pin_beside_a_writer_without_a_pause(source: Source, database: Path) -> None:
    """The pin sees exactly the state that its index describes, however fast others commit."""
    stop = threading.Event()

    def write() -> None:
        connection = apsw.Connection(str(database))
        connection.set_busy_timeout(10_000)
        connection.pragma("synchronous", 0)
        while not stop.is_set():
            connection.execute("INSERT INTO t VALUES (NULL, randomblob(300))")
        connection.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(20):
            index = source.hold_exactly()
            image = Image.under_pin(source, index, pages=source.page_count())
            raw = image.read(1, image.pages)
            expected = pinned_serialize(source)
            assert bytes(raw) == expected
            source.release()
    finally:
        stop.set()
        writer.join()


def pinned_serialize(source: Source) -> bytes:
    """Return the database as SQLite itself serializes it on the connection that holds the pin."""
    found = source._pin.serialize("main")
    assert found is not None
    return found


def test_the_write_lock(source: Source, application: Application) -> None:
    """While the lock is held nobody writes, readers go on; and it is not waited for longer than asked."""
    with source.write_lock(timeout_seconds=0) as locked:
        assert locked
        assert "locked" in application.run("INSERT INTO t VALUES (4, 'd')")
        assert application.run("SELECT count(*) FROM t") == "[(3,)]"
    assert application.run("INSERT INTO t VALUES (4, 'd')") == "[]"
    application.run("BEGIN IMMEDIATE")
    with source.write_lock(timeout_seconds=0.01) as locked:
        assert not locked
    application.run("COMMIT")
    assert application.run("SELECT count(*) FROM t") == "[(4,)]"


def test_the_write_lock_writes_nothing(source: Source, database: Path) -> None:
    """Taking the lock and letting it go leaves file and WAL as they were."""
    before = database.read_bytes(), Path(f"{database}-wal").read_bytes()
    with source.write_lock(timeout_seconds=1):
        pass
    assert (database.read_bytes(), Path(f"{database}-wal").read_bytes()) == before


def test_truncate_only_at_rest(source: Source, application: Application, database: Path) -> None:
    """The WAL's space is given back when all is copied and nobody reads of it; otherwise nothing happens."""
    application.run("INSERT INTO t VALUES (4, 'd')")
    with Application(database) as reader:
        reader.run("BEGIN")
        reader.run("SELECT * FROM t")
        assert not source.truncate()
        assert Path(f"{database}-wal").stat().st_size > 0
        reader.run("COMMIT")
    source.backfill()
    source.hold()  # on mark 0
    assert source.truncate()
    assert Path(f"{database}-wal").stat().st_size == 0


MARKS_HELD = """
import fcntl, os, sys
shm = os.open(sys.argv[1] + "-shm", os.O_RDWR)
for mark in range(5):
    try:
        fcntl.lockf(shm, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 123 + mark)  # WAL_READ_LOCK: see walformat.html
    except OSError:
        print(mark)
    else:
        fcntl.lockf(shm, fcntl.LOCK_UN, 1, 123 + mark)
"""


def marks_held(database: Path) -> list[int]:
    """Return the read marks on which there is a reader; asked by another process, whose close drops its own locks."""
    ended = subprocess.run(
        [sys.executable, "-S", "-c", MARKS_HELD, str(database)], capture_output=True, text=True, check=True
    )
    return [int(line) for line in ended.stdout.split()]


@pytest.fixture
def beginning(application: Application, monkeypatch: pytest.MonkeyPatch) -> list[apsw.Connection]:
    """Whatever read transaction begins, a commit comes before it; what began is noted."""
    real, begun = source_module._begin, list[apsw.Connection]()

    def begin(connection: apsw.Connection) -> None:
        application.run("INSERT INTO t VALUES (NULL, 'x')")
        begun.append(connection)
        real(connection)

    monkeypatch.setattr(source_module, "_begin", begin)
    return begun


def test_a_pin_beside_writers_stands_on_a_high_mark(
    source: Source, application: Application, database: Path, beginning: list[apsw.Connection]
) -> None:
    """The marks that writers try first are left to them: on the first one, a pin costs each commit three locks more.

    Seen to fail without `_low_marks_taken`: the pin stands on marks 1 and 2 by turns.
    """
    source.hold()
    assert marks_held(database) == [1]
    for mark in (4, 3, 4):
        for _ in range(64):
            application.run("INSERT INTO t VALUES (NULL, 'x')")
        source.hold_next()
        source.release_previous()
        assert marks_held(database) == [mark]
    assert len(beginning) == 1 + 3 * 3


def test_a_pin_beside_a_commit_now_and_then_stands_anywhere(
    source: Source, application: Application, database: Path, beginning: list[apsw.Connection]
) -> None:
    """One commit is not worth two more transactions of ours, however long the WAL has become by and by."""
    source.hold()
    for _ in range(70):
        application.run("INSERT INTO t VALUES (NULL, 'x')")
        source.hold_next()
        source.release_previous()
    assert marks_held(database) in ([1], [2])
    assert len(beginning) == 1 + 70
    assert source.index().uncopied > 100


@pytest.mark.parametrize("frozen", [False, True])
def test_low_marks_that_cannot_be_taken(
    source: Source, application: Application, database: Path, monkeypatch: pytest.MonkeyPatch, *, frozen: bool
) -> None:
    """A mark that cannot be had is left out, writers that are kept out stay so, and nothing is held but the pin."""
    for _ in range(64):
        application.run("INSERT INTO t VALUES (NULL, 'x')")
    source.hold()
    real, spare = source_module._begin, source._spare

    def begin(connection: apsw.Connection) -> None:
        if connection is not spare:
            raise apsw.BusyError
        real(connection)

    monkeypatch.setattr(source_module, "_begin", begin)
    assert not frozen or source.freeze(timeout_seconds=1)
    source.hold_next()
    source.release_previous()
    assert ("locked" in application.run("INSERT INTO t VALUES (NULL, 'x')")) == frozen
    source.thaw()
    source.release()
    assert marks_held(database) == []


def test_replaced(source: Source, database: Path, tmp_path: Path) -> None:
    """Another file at the path, none, an emptied one, or another WAL: all are noticed."""
    assert not source.was_replaced()
    aside = tmp_path / "aside"
    database.rename(aside)
    assert source.was_replaced()
    database.write_bytes(aside.read_bytes())
    assert source.was_replaced(), "the same bytes in another file"
    aside.rename(database)
    assert not source.was_replaced()
    source.wal.header()
    wal = Path(f"{database}-wal")
    wal.rename(aside)
    assert source.was_replaced()
    aside.rename(wal)
    os.truncate(database, 0)
    assert source.was_replaced()


def test_the_stamp_is_that_of_the_file_that_is_open(source: Source, database: Path, tmp_path: Path) -> None:
    """It stays while frames are written, and changes when they are copied; another file at the path has none here."""
    os.utime(database, ns=(1_700_000_000_123_456_789, 1_700_000_000_123_456_789))
    found = source.stamp()
    assert found is not None
    assert found.modified_ns == 1_700_000_000_123_456_789
    writer = apsw.Connection(str(database))
    writer.execute("INSERT INTO t VALUES (5, 'e')")
    assert source.stamp() == found
    writer.wal_checkpoint()
    assert source.stamp() != found
    writer.close()
    shutil.copy2(database, tmp_path / "copy")
    (tmp_path / "copy").replace(database)
    os.utime(database, ns=(1_700_000_000_123_456_789, 1_700_000_000_123_456_789))
    assert source.stamp() is None


def test_converted(tmp_path: Path) -> None:
    """A switch to WAL mode and a new page size show in the file's header; commits do not."""
    path = tmp_path / "app.db"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE t (n)")
    source = Source(path)
    try:
        assert not source.is_wal
        connection.execute("INSERT INTO t VALUES (1)")
        assert not source.was_converted()
        connection.execute("PRAGMA page_size=8192; VACUUM")
        assert source.was_converted()
    finally:
        source.close()
        connection.close()


def test_reading_past_the_end(source: Source, database: Path) -> None:
    """The file is read as if it went on with zeros: a page that is only in the WAL has none of it yet."""
    size = source.size_bytes()
    raw = database.read_bytes()
    assert source.read_file(size - 10, 30) == raw[-10:] + bytes(20)
    assert source.read_file(size + 100, 5) == bytes(5)


def test_closing_keeps_the_wal(database: Path, application: Application) -> None:
    """A source that is closed leaves every frame where it is, and may be closed again."""
    source = Source(database)
    application.run("INSERT INTO t VALUES (4, 'd')")
    source.hold()
    before = Path(f"{database}-wal").read_bytes()
    source.close()
    source.close()
    assert Path(f"{database}-wal").read_bytes() == before


OPEN_AND_CLOSE = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("SELECT count(*) FROM t").fetchall()
connection.close()
"""


def test_no_lock_is_dropped(source: Source, database: Path) -> None:
    """Nothing that is done with an open source drops the locks that tell other processes it is there.

    POSIX locks go when any descriptor on the file is closed in the process. Another process that closes its connection
    then believes to be the last, and deletes the WAL under us. The last lines show that the test would see it.
    """
    wal = Path(f"{database}-wal")

    def another_comes_and_goes() -> None:
        subprocess.run([sys.executable, "-S", "-c", OPEN_AND_CLOSE, str(database)], check=True)

    writer = apsw.Connection(str(database))
    writer.execute("INSERT INTO t VALUES (4, 'd')")
    writer.close()
    index = source.hold_exactly()
    image = Image.under_pin(source, index, pages=source.page_count())
    image.read(1, image.pages)
    source.read_file(0, 100)
    source.was_replaced()
    pin = source.open_pin()
    begin_read(pin)
    source.close_pin(pin)
    source.backfill()
    with source.write_lock(timeout_seconds=1):
        pass
    another_comes_and_goes()
    assert wal.exists()
    source.release()
    os.close(os.open(database, os.O_RDONLY))  # the trap itself
    another_comes_and_goes()
    assert not wal.exists(), "the trap is gone: then SQLite has changed, and this test proves nothing any more"


def test_looking_for_a_checkpoint_copies_nothing(source: Source, application: Application) -> None:
    """Whether somebody is inside a checkpoint is found out without copying a frame, however often it is asked.

    Seen to fail with a checkpoint that was not interrupted: after an outage a restart could not tell the transactions
    apart that had been committed during it.
    """
    source.hold()
    application.run("INSERT INTO t VALUES (4, 'd')")
    source.hold_next()
    source.release_previous()
    before = source.index()
    assert before.backfilled < before.frames
    for _ in range(3):
        assert not source.is_checkpointing()
    assert source.index() == before
    assert source.backfill()
    assert source.index().backfilled == before.frames
