from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import apsw
import pytest

from replicad.errors import DatabaseUnusable, FileUnusable
from replicad.sqlite.connection import connect, convert_to_wal, journal_mode, translated

if TYPE_CHECKING:
    from tests.unit.sqlite.conftest import Application


def test_a_connection_cannot_write(database: Path) -> None:
    """No statement on a connection of ours changes a row, and the one that may lock is for locking."""
    connection = connect(database)
    with pytest.raises(apsw.ReadOnlyError):
        connection.execute("INSERT INTO t VALUES (9, 'x')")
    connection.close()


def test_a_new_connection_sees_the_wal(database: Path, application: Application) -> None:
    """A checkpoint call tells the truth from the first one on.

    Until a connection has read once, SQLite's wal_checkpoint does nothing, and says so by no error.
    """
    application.run("INSERT INTO t VALUES (4, 'd')")
    fresh = apsw.Connection(str(database))
    assert fresh.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)[0] <= 0, "else the read is not needed any more"
    fresh.close()
    connection = connect(database)
    frames, backfilled = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
    connection.close()
    assert (frames, backfilled) == (1, 0)


def test_the_last_connection_leaves_the_wal(database: Path) -> None:
    """Closing copies no frame and deletes no WAL: in it may be what nobody has read.

    Seen to fail without SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE.
    """
    ours = connect(database)
    other = apsw.Connection(str(database))
    other.execute("INSERT INTO t VALUES (4, 'd')")
    before = database.read_bytes()
    other.close()
    ours.close()
    assert database.read_bytes() == before
    assert Path(f"{database}-wal").stat().st_size > 0


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    """A missing file is an error and is not made."""
    with pytest.raises(FileUnusable, match="could not be opened"):
        connect(tmp_path / "none.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [os.urandom(4096), b"SQLite format 3\0" + b"\xff" * 4080, b"x" * 200])
def test_a_file_that_is_no_database(tmp_path: Path, content: bytes) -> None:
    """Foreign, encrypted and damaged files are told as such."""
    path = tmp_path / "app.db"
    path.write_bytes(content)
    with pytest.raises(DatabaseUnusable, match=r"expected a (sound )?SQLite database"):
        connect(path)
    assert path.read_bytes() == content


def test_an_exclusive_application(database: Path, application: Application) -> None:
    """A database that is locked for good is told as such, with what to change."""
    application.run("PRAGMA locking_mode=exclusive")
    assert application.run("INSERT INTO t VALUES (4, 'd')") == "[]"
    with pytest.raises(DatabaseUnusable, match="locking_mode=exclusive"):
        connect(database, busy_timeout_seconds=0)


def test_conversion(tmp_path: Path) -> None:
    """Switching to WAL changes the journal mode and SQLite's own counters in the header, and nothing else."""
    path = tmp_path / "app.db"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE t (n); INSERT INTO t VALUES (1)")
    connection.close()
    before = path.read_bytes()
    assert journal_mode(path) == "delete"
    assert convert_to_wal(path)
    assert journal_mode(path) == "wal"
    after = path.read_bytes()
    changed = {at for at in range(len(before)) if before[at] != after[at]}
    assert {18, 19} <= changed <= {18, 19, *range(24, 28), *range(92, 100)}
    assert convert_to_wal(path)
    assert path.read_bytes() == after


def test_conversion_beside_a_busy_application(tmp_path: Path) -> None:
    """While a transaction is open, the switch is put off and nothing is disturbed."""
    path = tmp_path / "app.db"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE t (n); BEGIN IMMEDIATE; INSERT INTO t VALUES (1)")
    assert not convert_to_wal(path, busy_timeout_seconds=0)
    connection.execute("COMMIT")
    assert convert_to_wal(path, busy_timeout_seconds=0)
    connection.close()


def test_conversion_waits_for_the_end_of_a_transaction(tmp_path: Path) -> None:
    """A transaction that is open when the switch is tried, and ends in time, does not put it off.

    Seen to fail with SQLite's own busy timeout alone: it does not wait for a lock that it wants while it has another.
    """
    path = tmp_path / "app.db"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE t (n); BEGIN IMMEDIATE; INSERT INTO t VALUES (1)")
    ending = threading.Timer(0.1, connection.execute, ("COMMIT",))
    ending.start()
    assert convert_to_wal(path, busy_timeout_seconds=10)
    ending.join()
    assert journal_mode(path) == "wal"
    connection.close()


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (apsw.NotADBError, DatabaseUnusable),
        (apsw.CantOpenError, FileUnusable),
        (apsw.ReadOnlyError, FileUnusable),
        (apsw.CorruptError, DatabaseUnusable),
        (apsw.BusyError, DatabaseUnusable),
        (apsw.FullError, DatabaseUnusable),
        (apsw.IOError, DatabaseUnusable),
    ],
)
def test_errors_of_sqlite_are_translated(raised: type[apsw.Error], expected: type[Exception]) -> None:
    """Whatever SQLite raises becomes the error that says what can be done, with the path in it."""
    with pytest.raises(expected, match=r"/somewhere/app\.db"), translated(Path("/somewhere/app.db")):
        raise raised
