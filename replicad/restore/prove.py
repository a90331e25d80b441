"""The proof that what stands in the file is what stood in the source, and no less: nothing else puts it in place.

Every page is read back from the file and hashed; the checksum of the whole has to be the one that was recorded
when the transaction was captured. The checksum does not depend on the order, so a chunk is read back as soon as it
is written: it is still in the processor's cache, and there is nothing to wait for while the rest is on its way.
SQLite's own checks are for those who want to know whether the source itself was sound.
"""

from __future__ import annotations

import asyncio
import threading
from functools import reduce
from operator import xor
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

import apsw
import xxhash

from replicad.errors import ProofFailed
from replicad.position import lock_page
from replicad.restore.request import Integrity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from replicad.host.threads import Threads
    from replicad.restore.image import Image
    from replicad.wal.pagetable import PageTable

_PIECE_BYTES = 1 << 20  # a multiple of every page size
_STEPS = 100_000  # of SQLite's virtual machine between two looks at whether to stop
_MAX_PROBLEMS = 3  # quoted in a message

T = TypeVar("T")


class Interrupted(Exception):
    """The caller was cancelled."""


async def interruptible(threads: Threads, function: Callable[[threading.Event], T]) -> T:
    """Call a long function in a thread; when the caller is cancelled, have it stop and wait until it has.

    Args:
        threads: where it runs.
        function: is given an event, looks at it now and then, and raises `Interrupted` when it is set.
    """
    stop = threading.Event()
    running = asyncio.ensure_future(threads.run(function, stop))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # seen, and of no interest: the caller has gone
        raise


class Proof:
    """The checksum of the state in a file, from the file. Each page counts once, whenever it is read back.

    All methods block; threads may call them at the same time for different pages.

    Args:
        image: the file.
        table: is filled in on the way when there is one.
    """

    def __init__(self, image: Image, *, table: PageTable | None = None) -> None:
        self._image = image
        self._table = table
        self._checksum = 0
        self._adding = threading.Lock()
        self._read = bytearray(image.pages)  # one byte a page: 1 when it was counted, or never is
        lock = lock_page(image.page_size)
        if lock <= image.pages:
            self._read[lock - 1] = 1
        size = image.page_size
        self._cuts = [slice(offset, offset + size) for offset in range(0, _PIECE_BYTES, size)]  # a buffer into pages
        self._buffers = threading.local()

    def take(self, first: int, count: int, runs: Iterable[tuple[int, int]]) -> None:
        """Read back some of the `count` pages from index `first` (0-based), which are written and stay as they are.

        Args:
            first: index of the first page.
            count: how many pages `runs` are among.
            runs: (index, count) of pages in a row.

        Raises:
            ProofFailed: the file has become shorter.
            FileUnusable: it cannot be read.
        """
        read = bytearray(b"\1") * count
        rows = [(index, index + n) for index, n in runs]
        for begin, end in rows:
            read[begin - first : end - first] = self._read[begin:end]
        for begin in range(0, count, len(self._cuts)):
            self._take_piece(read, first, begin)
        for begin, end in rows:
            self._read[begin:end] = b"\1" * (end - begin)

    def finish(self, stop: threading.Event) -> int:
        """Read back what is left, now that all is written; return the checksum of the state.

        Raises:
            ProofFailed: the file has become shorter.
            FileUnusable: it cannot be read.
            Interrupted: the event was set.
        """
        for begin in range(0, self._image.pages, len(self._cuts)):
            if stop.is_set():
                raise Interrupted
            self._take_piece(self._read, 0, begin)
        return self._checksum if self._table is None else self._table.commit(self._image.pages)

    def _take_piece(self, read: bytearray, first: int, begin: int) -> None:
        """Read back the pages of one buffer that are 0 in `read`, from its index `begin`; page `first` is its first."""
        stop = begin + len(self._cuts)
        begin, end = read.find(0, begin, stop), read.rfind(0, begin, stop) + 1
        if begin < 0:
            return
        size = self._image.page_size
        offset, view = (first + begin) * size, self._buffer()[: (end - begin) * size]
        if (found := self._image.read(offset, view)) < len(view):
            raise ProofFailed(what=self._image.path, check=f"bytes at {offset}", expected=len(view), found=found)
        indexes: Sequence[int] = range(end - begin)
        if read.find(1, begin, end) >= 0:
            indexes = [index for index in indexes if not read[begin + index]]
        pgno = first + begin + 1
        self._add([pgno + index for index in indexes], [view[self._cuts[index]] for index in indexes])

    def _add(self, pgnos: Sequence[int], images: Sequence[memoryview]) -> None:
        if self._table is None:
            checksum = reduce(xor, map(xxhash.xxh3_64_intdigest, images, pgnos))
            with self._adding:
                self._checksum ^= checksum
        else:
            with self._adding:
                self._table.write(pgnos, images)

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
