"""A new file that is written from its beginning to its end, past the page cache where the file system can.

For what is hardly ever read. The cache needs a free page for each that is written, and has to fill it: a journal of
52 MB took 110 to 290 ms of a processor through the cache, and takes 75 past it.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_AT_ONCE_BYTES = 1 << 20  # a multiple of every disk's block


class NewFile:
    """One such file. All methods block.

    Args:
        path: where it is made; nothing may be there.
        mode: its permissions.

    Raises:
        OSError: it cannot be made, or, of each method, written.
    """

    def __init__(self, path: Path, mode: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self.descriptor = os.open(path, flags, mode)
        self._buffer = memoryview(mmap.mmap(-1, _AT_ONCE_BYTES))  # what goes past the cache begins at a page of memory
        self._filled_bytes = 0
        self._set_direct(on=True)

    def write(self, piece: bytes) -> None:
        """Add so many bytes."""
        rest = memoryview(piece)
        while rest:
            part = rest[: len(self._buffer) - self._filled_bytes]
            self._buffer[self._filled_bytes : self._filled_bytes + len(part)] = part
            self._filled_bytes += len(part)
            rest = rest[len(part) :]
            if self._filled_bytes == len(self._buffer):
                self._put()

    def sync(self) -> None:
        """Write what is left, and have the disk take all of it."""
        self._set_direct(on=False)  # the end of a file is not the end of a block
        self._put()
        os.fsync(self.descriptor)

    def close(self) -> None:
        """Close it, whole or not. Safe to repeat."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def _put(self) -> None:
        rest = self._buffer[: self._filled_bytes]
        while rest:
            try:
                written = os.write(self.descriptor, rest)
            except OSError as error:
                if error.errno != errno.EINVAL or not self._is_direct:
                    raise
                written = 0  # a disk with larger blocks
            rest = rest[written:]
            if rest:  # it does not begin at a block's beginning any more
                self._set_direct(on=False)
        self._filled_bytes = 0

    def _set_direct(self, *, on: bool) -> None:
        self._is_direct = False
        if hasattr(os, "O_DIRECT"):
            flags = fcntl.fcntl(self.descriptor, fcntl.F_GETFL)
            with suppress(OSError):  # a file system that cannot
                fcntl.fcntl(self.descriptor, fcntl.F_SETFL, flags | os.O_DIRECT if on else flags & ~os.O_DIRECT)
                self._is_direct = on
