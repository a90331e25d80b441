"""Connections to the application's database that read, checkpoint and lock, but never write a page.

The SQLite library is apsw's own: the one of the Python standard library may carry the WAL-reset bug
(docs/failure-model.md). `query_only` makes writing impossible on every connection but two: the short-lived one
that switches the journal mode, and the one that takes the write lock (SQLite wants it off for BEGIN IMMEDIATE)
and only ever rolls back.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import apsw

from replicad.errors import DatabaseBusy, DatabaseUnusable, FileUnusable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

READ_SOMETHING = "SELECT 1 FROM sqlite_schema"
_CACHE_KIB = 64  # these connections read one page; their cache need not hold more
_CONVERT_PAUSE_SECONDS = 0.001  # short: beside writers that begin again at once, the gap between two has to be met


def connect(path: Path, *, busy_timeout_seconds: float = 5.0, may_lock: bool = False) -> apsw.Connection:
    """Open a connection that cannot write; the file must exist and hold a database.

    With `may_lock` it can take the write lock.

    Raises:
        DatabaseUnusable: the file is no SQLite database, or another connection locks it exclusively.
        FileUnusable: the file cannot be opened.
    """
    with translated(path):
        connection = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            connection.set_busy_timeout(round(busy_timeout_seconds * 1000))
            # Closing the last connection would checkpoint and delete the WAL: frames nobody has read would go.
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            connection.pragma("wal_autocheckpoint", 0)
            connection.pragma("query_only", value=not may_lock)
            connection.pragma("cache_size", -_CACHE_KIB)
            # Until a connection has read once, wal_checkpoint on it does nothing and says so by no error.
            connection.execute(READ_SOMETHING).fetchall()
        except BaseException:
            connection.close()
            raise
        return connection


def journal_mode(path: Path) -> str:
    """Return the journal mode the database is in now, as SQLite names it ("wal", "delete", …)."""
    connection = connect(path)
    try:
        with translated(path):
            return str(connection.pragma("journal_mode"))
    finally:
        connection.close()


def convert_to_wal(path: Path, *, busy_timeout_seconds: float = 5.0) -> bool:
    """Switch the database to WAL mode; return False when the application kept it busy: try again later.

    This is the one write replicad makes to a database (two bytes of its header). SQLite wants the write lock for it
    while it holds a read lock, which it never waits for, whatever the busy timeout: so it is tried again here.
    """
    deadline = time.monotonic() + busy_timeout_seconds
    connection = connect(path, busy_timeout_seconds=busy_timeout_seconds, may_lock=True)
    try:
        with translated(path):
            while True:
                try:
                    return str(connection.pragma("journal_mode", "wal")) == "wal"
                except apsw.BusyError:
                    if time.monotonic() >= deadline:
                        return False
                    time.sleep(_CONVERT_PAUSE_SECONDS)
    finally:
        connection.close()


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn what apsw raises for an unusable database into the error that says what to do."""
    try:
        yield
    except apsw.NotADBError as error:
        raise DatabaseUnusable(
            path=path,
            expected="a SQLite database",
            found="a file with other contents (an encrypted database looks like that)",
            hint="Give the path of a plain SQLite database; SQLCipher and SEE files cannot be followed.",
        ) from error
    except (apsw.CantOpenError, apsw.PermissionsError, apsw.ReadOnlyError) as error:
        raise FileUnusable(
            path=path,
            operation="opened for reading and locking",
            found=str(error),
            hint="replicad needs read and write access to the database, its -wal, its -shm and their folder.",
        ) from error
    except apsw.CorruptError as error:
        raise DatabaseUnusable(
            path=path,
            expected="a sound SQLite database",
            found=str(error),
            hint="Restore it to an instant before the damage with `replicad restore --at`.",
        ) from error
    except apsw.BusyError as error:
        raise DatabaseBusy(
            path=path,
            expected="a database that can be shared",
            found=f"a lock that did not go away ({error})",
            hint="An application with locking_mode=exclusive cannot be followed: set it to normal.",
        ) from error
    except apsw.Error as error:
        raise DatabaseUnusable(
            path=path,
            expected="a database that SQLite can read",
            found=f"{type(error).__name__}: {error}",
            hint="It is tried again; nothing was lost.",
        ) from error
