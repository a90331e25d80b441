"""The proof that what stands in the file is what stood in the source, and no less: nothing else puts it in place.

Every page is read back from the file and hashed; the checksum of the whole has to be the one that was recorded
when the transaction was captured. SQLite's own checks are for those who want to know whether the source itself
was sound.
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
    from collections.abc import Callable
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


def read_back(image: Image, stop: threading.Event, *, table: PageTable | None = None) -> int:
    """Return the checksum of the state in the file, from the file; fill in `table` when there is one.

    Raises:
        ProofFailed: the file has become shorter.
        FileUnusable: it cannot be read.
        Interrupted: the event was set.
    """
    buffer = bytearray(_PIECE_BYTES)
    view = memoryview(buffer)
    size, lock = image.page_size, lock_page(image.page_size)
    checksum = 0
    for offset in range(0, image.size_bytes, _PIECE_BYTES):
        if stop.is_set():
            raise Interrupted
        length = min(_PIECE_BYTES, image.size_bytes - offset)
        if (found := image.read(offset, buffer)) < length:
            raise ProofFailed(what=image.path, check=f"bytes at {offset}", expected=length, found=found)
        first = offset // size + 1
        pgnos = range(first, first + length // size)
        images = [view[begin : begin + size] for begin in range(0, length, size)]
        if lock in pgnos:
            del images[lock - first]
            numbers = [pgno for pgno in pgnos if pgno != lock]
        else:
            numbers = list(pgnos)
        if table is None:
            checksum = reduce(xor, map(xxhash.xxh3_64_intdigest, images, numbers), checksum)
        else:
            table.write(numbers, images)
    return checksum if table is None else table.commit(image.pages)


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
