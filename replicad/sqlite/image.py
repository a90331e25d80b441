"""The whole database as one pin sees it: its file overlaid with the WAL's frames up to the pin's mark.

Why this is stable while writers go on: when every frame was copied at the time the pin was taken, the file
alone is the state, and under the pin nobody copies more than what is there already. Otherwise the pin is on
a mark k > 0: the WAL cannot be reset, and checkpoints only copy frames that are read from the WAL here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

from replicad.position import lock_page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replicad.sqlite.source import Index
    from replicad.sqlite.wal_file import WALFile
    from replicad.wal import Frames

_SCAN_BYTES = 4 << 20


class Files(Protocol):
    """An open database: its file and its WAL."""

    page_size: int
    wal: WALFile

    def read(self, first: int, count: int, salts: bytes) -> Frames:
        """Return committed frames, whose images are good until the next call."""

    def read_file(self, offset: int, length: int) -> bytes:
        """Return bytes of the database file, padded with zeros behind its end."""


class Image:
    """Page images of one state of the database."""

    def __init__(self, source: Files, *, pages: int, overlay: dict[int, int]) -> None:
        self.pages = pages
        self.page_size = source.page_size
        self._source = source
        self._overlay = overlay  # page number to the last frame that holds it
        self._lock_page = lock_page(source.page_size)

    @classmethod
    def under_pin(cls, source: Files, index: Index, *, pages: int) -> Self:
        """Return the image for a pin that sees exactly `index`, looked at while the pin was held.

        Raises:
            SaltsMoved: the WAL was reset all the same, so that the pin is not the one `index` describes.
        """
        return cls(source, pages=pages, overlay=_overlay(source, index) if index.uncopied else {})

    def read(self, first: int, count: int) -> bytearray:
        """Return `count` pages from number `first`, the lock page as zeros."""
        size = self.page_size
        raw = bytearray(self._source.read_file((first - 1) * size, count * size))
        overlay = self._overlay
        if overlay:
            for at, pgno in enumerate(range(first, first + count)):
                if pgno in overlay:
                    raw[at * size : (at + 1) * size] = self._source.wal.read_page(overlay[pgno], page_size=size)
        if first <= self._lock_page < first + count:
            at = self._lock_page - first
            raw[at * size : (at + 1) * size] = bytes(size)
        return raw

    def batches(self, batch_bytes: int) -> Iterator[tuple[int, list[memoryview]]]:
        """Iterate over (number of the first page, page images) from the front of the database to its end."""
        count = max(1, batch_bytes // self.page_size)
        for first in range(1, self.pages + 1, count):
            yield first, split(self.read(first, min(count, self.pages - first + 1)), self.page_size)


def split(raw: bytearray, page_size: int) -> list[memoryview]:
    """Cut bytes of whole pages into views of one page each."""
    view = memoryview(raw)
    return [view[at : at + page_size] for at in range(0, len(raw), page_size)]


def overlay_through(source: Files, frame: int, salts: bytes) -> dict[int, int]:
    """Return, for each page in frames 1 to `frame`, the last frame that holds it.

    Raises:
        SaltsMoved: the WAL was reset.
    """
    found: dict[int, int] = {}
    step = max(1, _SCAN_BYTES // source.page_size)
    for first in range(1, frame + 1, step):
        frames = source.read(first, min(step, frame - first + 1), salts)
        found.update(zip(frames.pgnos, range(first, first + len(frames)), strict=True))
    return found


def _overlay(source: Files, index: Index) -> dict[int, int]:
    return overlay_through(source, index.frames, index.salts)
