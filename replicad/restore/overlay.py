"""Pages of segments, kept aside until the chunk around them is written, so that both reach the disk in one write.

A chunk that goes past the page cache (`Image.write_whole`) has to hold the pages that segments have settled in it.
Were these in the image already, each written by itself, the chunk's write would first wait until every one of them is
on the disk, and then write over it. So they stand one behind the other in a file without a name beside the database,
which is gone before the disk gets to see it. What finds no room there is written into the image, as it is where
chunks do not go past the page cache.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from replicad.errors import FileUnusable
from replicad.host.nameless import open_nameless
from replicad.restore.rows import IOV_MAX, page_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from replicad.restore.settled import Frames

MOST_BYTES = 128 << 20
"""Kept aside at most: for a moment it takes page cache, and room on the disk."""

_MOST_PAGES = 32_768  # each costs a hundred bytes of memory
_AT_ONCE = 64  # pages handed out in one go


class Overlay:
    """The pages kept aside in one attempt. All methods block; threads may use it at the same time.

    Args:
        folder: for the file, on the disk that holds the database.
        page_size: in bytes.
        room_bytes: how large the file may become; 0: nothing is kept.
    """

    def __init__(self, folder: Path, *, page_size: int, room_bytes: int) -> None:
        self._folder = folder
        self._size = page_size
        self._room = min(room_bytes // page_size, _MOST_PAGES)  # in pages
        self._used = 0
        self._lock = threading.Lock()
        self._file = -1
        self._slots: dict[int, int] = {}  # by index of the page: where it stands in the file, counted in pages

    def put(self, frames: Frames, block: bytes | memoryview, first_frame: int) -> bool:
        """Keep the frames of a block; `first_frame` is the number of the block's first one.

        Returns:
            False when there is no room for them: nothing is kept then.
        """
        view, size = memoryview(block), self._size
        # by page, as those that belong to one chunk are then read in one go
        ordered = sorted(frames)
        images = [view[(n - first_frame) * size : (n - first_frame + 1) * size] for _, n in ordered]
        with self._lock:
            begin = self._used
            if begin + len(ordered) > self._room:
                return False
            try:
                self._write(begin * size, images)
            except OSError:  # what the disk does not take here it may take there, or it will be said
                self._room = 0
                return False
            self._used += len(ordered)
            self._slots.update((pgno - 1, slot) for slot, (pgno, _) in enumerate(ordered, begin))
        return True

    def find(self, indexes: Iterable[int]) -> dict[int, int]:
        """Return those of the pages (indexes, 0-based) that are kept, each with where it stands, for `read`."""
        slots = self._slots
        return {index: slots[index] for index in indexes if index in slots}

    def read(self, found: Mapping[int, int], first: int, images: memoryview) -> None:
        """Put kept pages into their places among page images, the first one of which is that of index `first`.

        Raises:
            FileUnusable: they cannot be read.
        """
        size = self._size
        for slot, indexes in page_rows((slot, index) for index, slot in found.items()):
            row = [images[(index - first) * size : (index - first + 1) * size] for index in indexes]
            try:
                n_bytes, problem = os.preadv(self._file, row, slot * size), "less than was written there"
            except OSError as error:
                n_bytes, problem = -1, error.strerror or repr(error)
            if n_bytes != len(row) * size:
                hint = "Check the disk: it does not keep what is written to it."
                path = self._folder / "(a temporary file)"
                raise FileUnusable(path=path, operation="read back", found=problem, hint=hint)

    def drop(self, indexes: Iterable[int]) -> None:
        """Forget pages that are written where they belong now."""
        for index in indexes:
            self._slots.pop(index, None)

    def rest(self) -> Iterator[tuple[Frames, memoryview]]:
        """Return the pages that were not dropped, some at a time, as a block and its frames.

        Raises:
            FileUnusable: they cannot be read.
        """
        indexes = sorted(self._slots)
        block = memoryview(bytearray(_AT_ONCE * self._size))
        for begin in range(0, len(indexes), _AT_ONCE):
            batch = indexes[begin : begin + _AT_ONCE]
            places = {number: self._slots[index] for number, index in enumerate(batch)}
            self.read(places, 0, block)
            yield [(index + 1, number) for number, index in enumerate(batch)], block

    def close(self) -> None:
        """Let go of everything."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._slots.clear()

    def _write(self, offset: int, images: list[memoryview]) -> None:
        if self._file < 0:
            self._file = open_nameless(self._folder)
        for begin in range(0, len(images), IOV_MAX):
            part = images[begin : begin + IOV_MAX]
            length = sum(map(len, part))
            if os.pwritev(self._file, part, offset) != length:
                raise OSError
            offset += length
