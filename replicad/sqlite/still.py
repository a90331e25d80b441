"""A database that is read once, from a state that a read transaction holds still, and is never written to.

For a file that somebody hands over: it may be in any journal mode, and an application may be writing to it. Every
connection is read-only, so not even a transaction that died half way is rolled back here: that would be a write.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import apsw

from replicad.errors import DatabaseBusy, DatabaseUnusable, FileUnusable
from replicad.position import lock_page
from replicad.sqlite.companions import leave_tidy
from replicad.sqlite.connection import READ_SOMETHING, translated
from replicad.sqlite.source import Index, begin_read, glance
from replicad.sqlite.wal_file import WALFile

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

    from replicad.wal import Frames

_BUSY_TIMEOUT_MS = 5000
_PATIENCE_SECONDS = 5.0
_NO_WAL = Index(frames=0, backfilled=0, salts=b"")
_MAX_PROBLEMS = 3  # quoted in a message
_STEPS = 100_000  # of SQLite's virtual machine between two looks at whether to stop


class Still:
    """One state of a database file, from `Still(path)` to `close`.

    Not safe for concurrent use; calls may come from different threads one at a time.

    Raises:
        DatabaseUnusable: it is no SQLite database, encrypted, empty, truncated, damaged, or was left in the middle of
            a transaction.
        DatabaseBusy: an application keeps it locked, or writes without a pause.
        FileUnusable: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.wal = WALFile(path)
        self.is_held = True  # False: nobody can be kept from writing, and whoever reads has to compare
        self._had_wal = _size_bytes(Path(f"{path}-wal")) is not None
        self._connections: list[apsw.Connection] = []
        self._file: apsw.VFSFile | None = None
        _refuse_what_holds_nothing(path)
        try:
            with _told_of_a_copy(path):
                self._pin = self._connect()
                self.page_size = int(self._pin.pragma("page_size"))
                self._file = apsw.VFSFile(
                    "", os.fspath(path), [apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READONLY, 0]
                )
                self.index = self._hold()
                self.pages = int(self._pin.pragma("page_count"))
            self._refuse_truncated()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let the state go; what stands beside the database is what stood there before. Safe to repeat."""
        while self._connections:
            self._connections.pop().close()
        if self._file is not None:
            self._file.xClose()
            self._file = None
        self.wal.close()
        # A connection that may not write leaves the empty WAL that it had to make; one that may takes it away.
        if not self._had_wal and _size_bytes(self.wal.path) == 0:
            leave_tidy(self.path)

    def read(self, first: int, count: int, salts: bytes) -> Frames:
        """Return committed frames, whose images are good until the next call."""
        return self.wal.read(first, count, page_size=self.page_size, salts=salts)

    def read_file(self, offset: int, length: int) -> bytes:
        """Return bytes of the database file, padded with zeros behind its end."""
        if self._file is None:
            raise AssertionError
        there = max(0, min(length, int(self._file.xFileSize()) - offset))
        found = self._file.xRead(there, offset) if there else b""
        return found + bytes(length - there)

    def check(self, stop: threading.Event, *, full: bool) -> None:
        """Have SQLite look for damage in exactly this state.

        Raises:
            DatabaseUnusable: it found some, or `stop` was set.
        """
        pragma = "integrity_check" if full else "quick_check"
        self._pin.set_progress_handler(stop.is_set, _STEPS)
        with _told_of_a_copy(self.path):
            problems = [str(row[0]) for row in self._pin.execute(f"PRAGMA {pragma}({_MAX_PROBLEMS})")]
        if problems != ["ok"]:
            raise DatabaseUnusable(
                path=self.path,
                expected=f"a database that passes PRAGMA {pragma}",
                found="; ".join(problems),
                hint="Repair it, or leave the check out with --integrity none.",
            )

    def _hold(self) -> Index:
        """Begin the read transaction, and return the index of exactly the state it sees."""
        if str(self._pin.pragma("journal_mode")) != "wal":
            begin_read(self._pin)
            return _NO_WAL
        if not self.is_held:
            return self._hold_file()
        observer = self._connect()
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            try:
                before = glance(observer, self.wal)
            except apsw.ReadOnlyError:  # there is no index of the WAL, and none can be made
                if _size_bytes(self.wal.path):
                    raise
                return self._hold_file()
            begin_read(self._pin)
            after = glance(observer, self.wal)
            if before and after and (before.frames, before.salts) == (after.frames, after.salts):
                return after
            self._pin.execute("ROLLBACK")
        raise DatabaseBusy(
            path=self.path,
            expected=f"a moment without a commit within {_PATIENCE_SECONDS:g} s",
            found="an application that writes without a pause",
            hint="Stop it, or have it pause; then try again.",
        )

    def _hold_file(self) -> Index:
        """Read the file alone, which is the state when there is no WAL; nothing keeps it as it is."""
        self.is_held = False
        begin_read(self._pin)
        return _NO_WAL

    def _connect(self) -> apsw.Connection:
        try:
            return self._opened(os.fspath(self.path), apsw.SQLITE_OPEN_READONLY)
        except (apsw.CantOpenError, apsw.ReadOnlyError) as error:
            if _is_hot(error) or _size_bytes(self.wal.path):
                raise
        # In WAL mode, in a folder where nothing can be made: without a WAL the file alone is the state.
        self.is_held = False
        flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        return self._opened(f"file:{quote(str(self.path.absolute()))}?immutable=1", flags)

    def _opened(self, name: str, flags: int) -> apsw.Connection:
        connection = apsw.Connection(name, flags=flags)
        try:
            connection.set_busy_timeout(_BUSY_TIMEOUT_MS)
            connection.execute(READ_SOMETHING).fetchall()
        except BaseException:
            connection.close()
            raise
        self._connections.append(connection)
        return connection

    def _refuse_truncated(self) -> None:
        """Raise when pages are not there. With frames still to be copied the file may be shorter than the state."""
        if self.index.frames != self.index.backfilled or self._file is None:
            return
        size_bytes, expected_bytes = int(self._file.xFileSize()), self.pages * self.page_size
        if self.pages == lock_page(self.page_size):  # nothing is ever written there
            expected_bytes -= self.page_size
        if size_bytes < expected_bytes:
            raise DatabaseUnusable(
                path=self.path,
                expected=f"{expected_bytes} bytes",
                found=f"{size_bytes}: the file is truncated",
                hint="Copy it again, with whatever stands beside it.",
            )


def _refuse_what_holds_nothing(path: Path) -> None:
    size_bytes = _size_bytes(path)
    if size_bytes is None or not path.is_file():
        found = "there is no such file" if size_bytes is None else "it is no regular file"
        raise FileUnusable(path=path, operation="read", found=found, hint="Give the path of a SQLite database.")
    if size_bytes == 0:
        raise DatabaseUnusable(
            path=path, expected="a SQLite database", found="an empty file", hint="Give the file that holds the data."
        )


def _size_bytes(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        hint = "Check the permissions on the way to it."
        raise FileUnusable(path=path, operation="read", found=error.strerror or repr(error), hint=hint) from error


def _is_hot(error: apsw.Error) -> bool:
    """Return whether a journal stands beside the file that would have to be rolled back, which is a write."""
    found: int = getattr(error, "extendedresult", 0)
    return found == apsw.SQLITE_READONLY_ROLLBACK


@contextmanager
def _told_of_a_copy(path: Path) -> Iterator[None]:
    """Turn what apsw raises into the error that says what to do about a file that was handed over."""
    with translated(path):
        try:
            yield
        except apsw.CorruptError as error:
            raise DatabaseUnusable(
                path=path,
                expected="a whole and sound SQLite database",
                found=str(error),
                hint="If it is a copy, copy it again with what stands beside it; else ask PRAGMA integrity_check.",
            ) from error
        except (apsw.CantOpenError, apsw.PermissionsError, apsw.ReadOnlyError) as error:
            if _is_hot(error):
                raise DatabaseUnusable(
                    path=path,
                    expected="a database at rest",
                    found="a transaction that died half way: its -journal has to be rolled back first",
                    hint="Have SQLite do that (open it with sqlite3 and read something), or start and stop the "
                    "application; then try again.",
                ) from error
            hint = "It is read with its -wal, which takes a folder that can be written to: copy both to one."
            raise FileUnusable(path=path, operation="read", found=str(error), hint=hint) from error
