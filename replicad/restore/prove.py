"""The proof that what stands in the file is what stood in the source, and no less: nothing else puts it in place.

Every page is hashed, with the number of the place it stands at; the checksum of the whole has to be the one that was
recorded when the transaction was captured. A page is read back from the file for it; but for those that go to the disk
past the page cache, a chunk in one write: they are hashed in the very memory that is written, and both ends of each
are read back from the disk at the end. The checksum does not depend on the order, so this is done as soon as a chunk
is written: it is still in the processor's cache, and there is nothing to wait for while the rest is on its way.
SQLite's own checks are for those who want to know whether the source itself was sound.
"""

from __future__ import annotations

import threading
from functools import reduce
from operator import xor
from typing import TYPE_CHECKING
from urllib.parse import quote

import apsw
import xxhash

from replicad.errors import ProofFailed
from replicad.host.interruptible import Interrupted
from replicad.position import lock_page
from replicad.restore.request import Evidence, Integrity
from replicad.wal.pagetable import PageTable

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from replicad.restore.image import Image

_PIECE_BYTES = 256 << 10  # a multiple of every page size, and still in the processor's cache when it is hashed
_UNWRITTEN, _COUNTED, _WRITTEN = 0, 1, 2  # nobody wrote the page yet; it was read back, or never is; it waits for that
_LATER = 3  # it is written when all chunks are
_UNWRITTEN_MARK, _COUNTED_MARK, _WRITTEN_MARK = (bytes([mark]) for mark in (_UNWRITTEN, _COUNTED, _WRITTEN))
_COUNT = bytes.maketrans(bytes([_UNWRITTEN, _WRITTEN]), bytes([_COUNTED, _COUNTED]))  # but not what comes later
_TAKE_AS_WRITTEN = bytes.maketrans(bytes([_UNWRITTEN, _LATER]), bytes([_WRITTEN, _WRITTEN]))
_SPARSE = 4  # fewer than one page in so many: each is read by itself
_STEPS = 100_000  # of SQLite's virtual machine between two looks at whether to stop
_MAX_PROBLEMS = 3  # quoted in a message


class Proof:
    """The checksum of the state in a file. Each page counts once, whenever it is read back.

    All methods block; threads may call them at the same time for different pages.

    Args:
        image: the file.
        hashes: where the hash of each page is noted, one for each, zeros so far; None: nowhere.
    """

    def __init__(self, image: Image, *, hashes: array[int] | None = None) -> None:
        self._image = image
        self._hashes = hashes
        self._checksum = 0
        self._adding = threading.Lock()
        self._pages = bytearray(image.pages)  # one byte a page: what became of it, see below
        lock = lock_page(image.page_size)
        if lock <= image.pages:
            self._pages[lock - 1] = _COUNTED
        size = image.page_size
        self._cuts = [slice(offset, offset + size) for offset in range(0, _PIECE_BYTES, size)]  # a buffer into pages
        self._buffers = threading.local()

    def presume(self, checksum: int, pages: int, without: Iterable[int]) -> None:
        """Begin with pages that were read from this very file already, and have not been written to since.

        Args:
            checksum: what they add up to.
            pages: their last one's number; the first one is 1.
            without: the numbers of those that do not count yet.
        """
        self._checksum = checksum
        self._pages[:pages] = _COUNTED_MARK * pages
        lock = lock_page(self._image.page_size)
        for pgno in without:
            self._pages[pgno - 1] = _COUNTED if pgno == lock else _UNWRITTEN

    def written(self, pgnos: Iterable[int]) -> None:
        """Take note of pages that are written and stay as they are; they are read back with their neighbours."""
        pages = self._pages
        for pgno in pgnos:
            if pages[pgno - 1] != _COUNTED:
                pages[pgno - 1] = _WRITTEN

    def later(self, pgnos: Iterable[int]) -> None:
        """Take note of pages that are written when all chunks are: what a chunk has in their place does not count."""
        for pgno in pgnos:
            self._pages[pgno - 1] = _LATER

    def are_later(self, first: int, count: int) -> bool:
        """Return whether all of the pages in a row, from index `first` (0-based), are to be written later."""
        return self._pages.count(_LATER, first, first + count) == count

    def are_written(self, first: int, count: int) -> bool:
        """Return whether all of the pages in a row, from index `first` (0-based), are written and not read back yet."""
        return self._pages.count(_WRITTEN, first, first + count) == count

    def take_whole(self, first: int, images: memoryview) -> None:
        """Count pages in a row, from index `first` (0-based), whose images were written from this very memory.

        But for those that are to be written later.
        """
        size = self._image.page_size
        count = len(images) // size
        marks = bytes(self._pages[first : first + count])
        places = range(count) if _LATER not in marks else [n for n, mark in enumerate(marks) if mark != _LATER]
        self._add([first + n + 1 for n in places], [images[n * size : (n + 1) * size] for n in places])
        self._pages[first : first + count] = marks.translate(_COUNT)

    def take(self, first: int, count: int, runs: Iterable[tuple[int, int]]) -> bool:
        """Read back what is written among the `count` pages from index `first` (0-based).

        Args:
            first: index of the first page.
            count: how many pages are looked at.
            runs: (index, count) of pages in a row that are written now, and stay as they are.

        Returns:
            Whether all of them have been read back now.

        Raises:
            ProofFailed: the file has become shorter.
            FileUnusable: it cannot be read.
        """
        for index, n in runs:
            self._pages[index : index + n] = self._pages[index : index + n].replace(_UNWRITTEN_MARK, _WRITTEN_MARK)
        stop = min(first + count, len(self._pages))
        for begin in range(first, stop, len(self._cuts)):
            self._take_piece(begin, min(begin + len(self._cuts), stop))
        return self._pages.count(_COUNTED, first, stop) == stop - first

    def finish(self, stop: threading.Event) -> int:
        """Read back what is left, now that all is written; return the checksum of the state.

        Raises:
            ProofFailed: the file has become shorter.
            FileUnusable: it cannot be read.
            Interrupted: the event was set.
        """
        self._pages = self._pages.translate(_TAKE_AS_WRITTEN)  # holes: zeros count as well
        begin = self._pages.find(_WRITTEN)
        while begin >= 0:
            if stop.is_set():
                raise Interrupted
            end = min(begin + len(self._cuts), len(self._pages))
            self._take_piece(begin, end)
            begin = self._pages.find(_WRITTEN, end)
        return self._checksum

    @property
    def table(self) -> PageTable | None:
        """The page table of the finished state, when hashes were noted."""
        if self._hashes is None:
            return None
        return PageTable.of(self._image.page_size, self._hashes, self._checksum)

    def evidence(self) -> Evidence | None:
        """Return what is known of the finished and synced file; None when no hashes were noted, or nothing is sure.

        Raises:
            FileUnusable: the disk does not say.
        """
        if (table := self.table) is None or (stamp := self._image.stamp()) is None:
            return None
        return Evidence(stamp=stamp, table=table)

    def _take_piece(self, begin: int, end: int) -> None:
        """Read back the pages from index `begin` to `end`, no more than one buffer has, that are written by now."""
        marks = bytes(self._pages[begin:end])  # other threads write pages, and say so, at any time
        count = marks.count(_WRITTEN)
        first, last = marks.find(_WRITTEN), marks.rfind(_WRITTEN) + 1
        if count * _SPARSE >= last - first:
            self._take_span(begin + first, marks[first:last])
            return
        while first >= 0:  # few, far apart: what lies between them is not read
            last = first + 1
            while marks.startswith(_WRITTEN_MARK, last):
                last += 1
            self._take_span(begin + first, marks[first:last])
            first = marks.find(_WRITTEN, last)

    def _take_span(self, begin: int, marks: bytes) -> None:
        """Read back pages in a row, and count those that are marked."""
        size = self._image.page_size
        offset, view = begin * size, self._buffer()[: len(marks) * size]
        if (found := self._image.read(offset, view)) < len(view):
            raise ProofFailed(what=self._image.path, check=f"bytes at {offset}", expected=len(view), found=found)
        indexes: Sequence[int] = range(len(marks))
        if marks.count(_WRITTEN) < len(marks):
            indexes = [index for index in indexes if marks[index] == _WRITTEN]
            for index in indexes:
                self._pages[begin + index] = _COUNTED
        else:
            self._pages[begin : begin + len(marks)] = _COUNTED_MARK * len(marks)
        self._add([begin + 1 + index for index in indexes], [view[self._cuts[index]] for index in indexes])

    def _add(self, pgnos: Sequence[int], images: Sequence[memoryview]) -> None:
        found: Iterable[int] = map(xxhash.xxh3_64_intdigest, images, pgnos)
        if self._hashes is not None:
            found = list(found)
            for pgno, page_hash in zip(pgnos, found, strict=True):
                self._hashes[pgno - 1] = page_hash
        checksum = reduce(xor, found, 0)
        with self._adding:
            self._checksum ^= checksum

    def _buffer(self) -> memoryview:
        """Return this thread's buffer."""
        found: memoryview | None = getattr(self._buffers, "view", None)
        if found is None:
            found = self._buffers.view = memoryview(bytearray(_PIECE_BYTES))
        return found


def ask_sqlite(path: Path, integrity: Integrity, stop: threading.Event) -> None:
    """Have SQLite check the file, without a `-wal` or `-shm` coming to be beside it.

    Raises:
        ProofFailed: it finds fault.
        Interrupted: the event was set.
    """
    pragma = "quick_check" if integrity is Integrity.QUICK else "integrity_check"
    try:
        connection = apsw.Connection(
            f"file:{quote(str(path))}?mode=ro&immutable=1", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        )
        try:
            connection.set_progress_handler(stop.is_set, _STEPS)
            problems = [str(row[0]) for row in connection.execute(f"PRAGMA {pragma}({_MAX_PROBLEMS})")]
        finally:
            connection.close()
    except apsw.InterruptError as error:
        raise Interrupted from error
    except apsw.Error as error:
        problems = [str(error)]
    if problems != ["ok"]:
        raise ProofFailed(what=path, check=f"PRAGMA {pragma}", expected="ok", found="; ".join(problems))
