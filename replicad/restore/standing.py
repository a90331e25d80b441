"""The database file that stands at the target, while it is made a later state of itself where it stands.

SQLite's exclusive lock is held from the first look to the end, so what was read stays as it was, and nobody reads
what is half done. The pages that are to change are first written to a rollback journal (see `journal`), which is
synced before the first of them is overwritten and removed when the new state is proven and synced. So at every
instant SQLite sees all of the old database or all of the new one, as with a transaction of its own.

The descriptor is a raw one: closing it drops every POSIX lock of this process on the file (docs/decisions/0002). It
is opened and closed while SQLite holds its exclusive lock, so there is none but that one to be dropped.
"""

from __future__ import annotations

import os
import secrets
import threading
from array import array
from contextlib import closing, suppress
from functools import reduce
from operator import xor
from typing import TYPE_CHECKING

import apsw
import xxhash

from replicad.errors import FileUnusable, TargetBusy
from replicad.host.files import fsync_directory, stamp_of
from replicad.host.interruptible import Interrupted
from replicad.host.newfile import NewFile
from replicad.position import is_page_size, lock_page, page_size_of
from replicad.restore.image import Image, disk_error
from replicad.restore.journal import journal_header, journal_path, journal_record
from replicad.restore.segments import State
from replicad.wal.pagetable import no_hashes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from replicad.restore.request import Evidence

_PIECE_BYTES = 1 << 20  # a multiple of every page size
_HEADER_BYTES = 100
_JOURNAL_MODE = 0o600  # until it is whole


class Standing:
    """A database file under SQLite's exclusive lock. All methods block.

    `open` comes first, `close` last: it puts the file back as it was, unless `commit` was called.

    Args:
        path: with links followed.
        evidence: of an earlier look at the file.
        keep_hashes: whether the hash of every page is noted, in 8 bytes each.
    """

    def __init__(self, path: Path, *, evidence: Evidence | None = None, keep_hashes: bool = False) -> None:
        self.path = path
        self.is_known = False  # whether the evidence holds: nothing is to be added
        self._evidence = evidence
        self._keep_hashes = keep_hashes
        self._hashes: array[int] | None = None  # by page number, from 1 on
        self.page_size = 0
        self.pages = 0
        self._file: apsw.VFSFile | None = None
        self._descriptor = -1
        self._begun = False
        self._checksum = 0
        self._adding = threading.Lock()

    def open(self) -> bool:
        """Lock and open it; return whether it can be changed where it stands.

        It cannot when it is not ours to write, has another name too (a hard link shows the same pages), or consists
        of more than the file: a WAL or a journal.
        """
        opened = False
        try:
            opened = self._open()
        except (apsw.Error, OSError):  # no locks here, no permission: then a new file is made beside it
            return False
        finally:
            if not opened:
                self.close()
        return opened

    def add(self, part: int, parts: int, stop: threading.Event) -> None:
        """Read one of so many parts of the file and add it to the checksum; threads take a part each.

        Raises:
            FileUnusable: it cannot be read.
            Interrupted: the event was set.
        """
        size, lock = self.page_size, lock_page(self.page_size)
        view = memoryview(bytearray(_PIECE_BYTES))
        images = [view[begin : begin + size] for begin in range(0, _PIECE_BYTES, size)]
        checksum = 0
        for first in range(part * len(images), self.pages, parts * len(images)):
            if stop.is_set():
                raise Interrupted
            count = min(len(images), self.pages - first)
            self._read(view[: count * size], first * size)
            pgnos = range(first + 1, first + count + 1)
            found: Iterable[int] = map(xxhash.xxh3_64_intdigest, images[:count], pgnos)
            if self._hashes is not None:
                self._hashes[first : first + count] = found = array("Q", found)
            checksum ^= reduce(xor, found)
            if lock in pgnos:
                checksum ^= xxhash.xxh3_64_intdigest(images[lock - first - 1], lock)
                if self._hashes is not None:
                    self._hashes[lock - 1] = 0
        with self._adding:
            self._checksum ^= checksum

    @property
    def state(self) -> State:
        """What it is, once all parts were added, or when it is known."""
        return State(self._checksum, self.pages)

    def hashes_for(self, pages: int) -> array[int] | None:
        """Give the hashes that were noted away, with room for so many pages, not fewer than the file has."""
        hashes, self._hashes = self._hashes, None
        if hashes is not None:
            hashes += no_hashes(pages - self.pages)
        return hashes

    def begin(self, pgnos: Sequence[int], temporary: Path) -> int:
        """Make it possible to put these pages back; return the checksum of all pages but these.

        Args:
            pgnos: pages that are going to be overwritten, all that stand in the file.
            temporary: a name to write the journal under.

        Raises:
            NoSpace: the disk is full; nothing was changed.
            FileUnusable: the file cannot be read, or the journal not be written.
        """
        checksum, journal = self._checksum, journal_path(self.path)
        try:
            with closing(NewFile(temporary, _JOURNAL_MODE)) as file:
                nonce = secrets.randbits(32)
                file.write(journal_header(records=len(pgnos), nonce=nonce, pages=self.pages, page_size=self.page_size))
                for pgno, image in self._images(pgnos):
                    checksum ^= xxhash.xxh3_64_intdigest(image, pgno)
                    file.write(journal_record(pgno, image, nonce=nonce))
                self._share(file.descriptor)
                file.sync()
            self._begun = True
            temporary.rename(journal)  # whole from the first instant that SQLite can see it
        except OSError as error:
            raise disk_error(journal, "written", error, needed_bytes=len(pgnos) * self.page_size) from error
        fsync_directory(self.path.parent)
        return checksum

    def image(self, pages: int) -> Image:
        """Return the file as an image of so many pages, not fewer than it has, to write the new ones into.

        Raises:
            NoSpace: the disk is full.
            FileUnusable: it cannot be made longer.
        """
        image = Image(self.path, size_bytes=pages * self.page_size, page_size=self.page_size)
        image.adopt(self._descriptor)
        return image

    def commit(self) -> None:
        """Make what stands in the file, proven and synced, the database for good.

        Raises:
            FileUnusable: the journal cannot be removed; the old state holds.
        """
        if self._begun:
            try:
                journal_path(self.path).unlink()
            except OSError as error:
                raise disk_error(self.path, "put in place", error, needed_bytes=0) from error
            self._begun = False
            fsync_directory(self.path.parent)

    def close(self) -> None:
        """Give it free again, as it was before when nothing was committed. Safe to repeat.

        Raises:
            TargetBusy: somebody else opened it, and it is now SQLite's to put it back.
            FileUnusable: SQLite cannot put it back; the journal stands.
        """
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._file is not None:
            with suppress(apsw.Error):
                self._file.xUnlock(apsw.SQLITE_LOCK_NONE)
            self._file.xClose()
            self._file = None
        if self._begun:
            self._begun = False
            roll_back(self.path)

    def _open(self) -> bool:
        if not self.path.is_file() or self.path.stat().st_nlink != 1:
            return False
        flags = apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READWRITE
        self._file = apsw.VFSFile("", os.fspath(self.path), [flags, 0])
        self._file.xLock(apsw.SQLITE_LOCK_SHARED)
        self._file.xLock(apsw.SQLITE_LOCK_EXCLUSIVE)
        if self._has_more():
            return False
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        if not self._measure():
            return False
        self._take_evidence()
        return True

    def _has_more(self) -> bool:
        wal = self.path.with_name(f"{self.path.name}-wal")
        return journal_path(self.path).exists() or (wal.exists() and wal.stat().st_size > 0)

    def _measure(self) -> bool:
        """Learn the sizes; return whether they can be right, and the file is still the one that has the name."""
        found = os.fstat(self._descriptor)
        head = os.pread(self._descriptor, _HEADER_BYTES, 0)
        if len(head) < _HEADER_BYTES or not os.path.samestat(found, self.path.stat()):
            return False
        self.page_size = page_size_of(int.from_bytes(head[16:18], "big"))
        if not is_page_size(self.page_size) or found.st_size % self.page_size:
            return False
        self.pages = found.st_size // self.page_size
        return True

    def _take_evidence(self) -> None:
        """Take what is known of the file, when it was not written to since: from here on it is locked."""
        found, self._evidence = self._evidence, None
        table = None
        if found is not None:
            table = found.table_for(stamp_of(self._descriptor), page_size=self.page_size, pages=self.pages)
        if table is not None:
            self.is_known, self._checksum = True, table.checksum
        if self._keep_hashes:
            self._hashes = no_hashes(self.pages) if table is None else table.hashes()

    def _share(self, descriptor: int) -> None:
        """Let whoever may use the database use its journal: it may be for them to roll it back."""
        found = os.fstat(self._descriptor)
        with suppress(PermissionError):
            os.fchown(descriptor, found.st_uid, found.st_gid)
        os.fchmod(descriptor, 0o666 & found.st_mode)

    def _images(self, pgnos: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        size = self.page_size
        for pgno in pgnos:
            image = os.pread(self._descriptor, size, (pgno - 1) * size)
            if len(image) < size:
                raise self._shorter()
            yield pgno, image

    def _read(self, view: memoryview, offset: int) -> None:
        try:
            found = os.preadv(self._descriptor, [view], offset)
        except OSError as error:
            raise disk_error(self.path, "read", error, needed_bytes=0) from error
        if found < len(view):
            raise self._shorter()

    def _shorter(self) -> FileUnusable:
        hint = "Something writes into it without SQLite's locks; see that nothing does, and try again."
        return FileUnusable(path=self.path, operation="read", found="it has become shorter", hint=hint)


def roll_back(path: Path) -> None:
    """Have SQLite put a database back as the journal beside it says.

    Raises:
        TargetBusy: somebody else has opened it.
        FileUnusable: SQLite cannot.
    """
    try:
        connection = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            connection.execute("PRAGMA schema_version").fetchall()
        finally:
            connection.close()
    except (apsw.BusyError, apsw.LockedError) as error:
        raise TargetBusy(
            path=path, found="the database that stands there is open, in this or another process"
        ) from error
    except apsw.Error as error:
        if not journal_path(path).exists():
            return  # it was put back; that SQLite finds fault with what stood there is another matter
        hint = "A restore in place was cut off: keep the file and its -journal together, they are one database."
        raise FileUnusable(path=path, operation="rolled back", found=str(error), hint=hint) from error
