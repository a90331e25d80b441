"""The database file that stands at the target already: a source of chunks that need not be fetched.

It is only ever read, and through SQLite's own VFS: closing a raw descriptor on a database drops every lock
that this process holds on it (docs/decisions/0002).
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import apsw

from replicad.snapshot import PLAIN_NAMES, ChunkNames

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class OldFile:
    """A file of which nothing is believed but what a hash proves. All methods block.

    Args:
        path: where it stands, if it does.
        names: how the replica names its chunks.
    """

    def __init__(self, path: Path, names: ChunkNames = PLAIN_NAMES) -> None:
        self.path = path
        self.names = names
        self._file: apsw.VFSFile | None = None
        self._size_bytes = 0
        self._lock = threading.Lock()  # SQLite's VFS may seek and read in two steps

    def open(self) -> None:
        """Open it; a file that is not there, or cannot be read, has nothing to lend."""
        flags = apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READONLY
        if self.path.is_file():
            with suppress(apsw.Error):
                self._file = apsw.VFSFile("", os.fspath(self.path), [flags, 0])
                self._size_bytes = self._file.xFileSize()

    @property
    def lends(self) -> bool:
        """Whether there is anything to lend."""
        return self._size_bytes > 0

    def chunk(self, name: str, raw_bytes: int, offsets: Iterable[int]) -> bytes | None:
        """Return the chunk of that name if it stands at one of the offsets, else None."""
        for offset in offsets:
            raw = self._read(offset, raw_bytes)
            if raw is not None and self.names.fits(name, raw):
                return raw
        return None

    def close(self) -> None:
        """Close it, lending no more. Safe to repeat."""
        self._size_bytes = 0
        if self._file is not None:
            self._file.xClose()
            self._file = None

    def _read(self, offset: int, n_bytes: int) -> bytes | None:
        if self._file is None or offset + n_bytes > self._size_bytes:
            return None
        with self._lock, suppress(apsw.Error):  # unreadable, or cut off meanwhile: then it is fetched
            raw = self._file.xRead(n_bytes, offset)
            return raw if len(raw) == n_bytes else None
        return None


def is_in_use(path: Path) -> bool:
    """Return whether some connection, of any process, holds a lock on the database: one in WAL mode always does.

    Asks by taking SQLite's exclusive lock for a moment, which changes nothing in the file.
    """
    flags = apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READWRITE
    try:
        file = apsw.VFSFile("", os.fspath(path), [flags, 0])
    except apsw.Error:
        return False  # not ours to open; whether it can be replaced is the folder's to say
    try:
        file.xLock(apsw.SQLITE_LOCK_SHARED)
        file.xLock(apsw.SQLITE_LOCK_EXCLUSIVE)
    except apsw.BusyError:
        return True
    except apsw.Error:
        return False  # a file system without locks
    else:
        return False
    finally:
        with suppress(apsw.Error):
            file.xUnlock(apsw.SQLITE_LOCK_NONE)
        file.xClose()
