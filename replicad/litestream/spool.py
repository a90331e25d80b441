"""The temporary file in which a state is put together, transaction by transaction."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from replicad.errors import NoSpace
from replicad.host.files import free_bytes
from replicad.position import lock_page
from replicad.restore.image import disk_error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Spool:
    """A database file in the making. All methods block; `close` comes last, and leaves the file.

    Args:
        path: of the file, which does not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.page_size = 0
        self.pages = 0
        with self._problems("created"):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def close(self) -> None:
        """Close the file. Safe to repeat."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def start(self, page_size: int, pages: int) -> None:
        """Begin with a state of `pages` pages.

        Raises:
            NoSpace: there is not room for it.
        """
        self.page_size = page_size
        needed_bytes, room_bytes = pages * page_size, free_bytes(self.path.parent)
        if needed_bytes > room_bytes:
            raise NoSpace(path=self.path.parent, needed_bytes=needed_bytes, free_bytes=room_bytes)

    def write(self, pgno: int, page: bytes | memoryview) -> None:
        """Write a page."""
        with self._problems("written"):
            os.pwrite(self._descriptor, page, (pgno - 1) * self.page_size)

    def append(self, raw: bytes) -> None:
        """Write bytes behind all others: of a database that comes front to back."""
        with self._problems("written"):
            os.write(self._descriptor, raw)

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the file."""
        with self._problems("read"):
            return os.pread(self._descriptor, length, offset)

    def size_bytes(self) -> int:
        """Return the size of the file."""
        return os.fstat(self._descriptor).st_size

    def commit(self, pages: int) -> None:
        """Give the file the size that the database has after a transaction."""
        self.pages = pages
        with self._problems("resized"):
            os.ftruncate(self._descriptor, pages * self.page_size)

    def numbered_pages(self) -> Iterator[tuple[int, bytes]]:
        """Iterate over number and image of each page but the lock page."""
        skipped = lock_page(self.page_size)
        for pgno in range(1, self.pages + 1):
            if pgno != skipped:
                yield pgno, self.read((pgno - 1) * self.page_size, self.page_size)

    @contextmanager
    def _problems(self, operation: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise disk_error(self.path, operation, error, needed_bytes=self.page_size) from error
