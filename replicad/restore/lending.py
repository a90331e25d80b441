"""Pages of a database that is changed where it stands, for the segments that refer to them.

They are read before the first page is overwritten: a segment that refers to one is unpacked long after that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.restore.older import Shelf, Version, Wanted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from replicad.position import TXID
    from replicad.restore.image import Image
    from replicad.restore.workshop import Workshop
    from replicad.segment import SegmentIndex


class _Nobody:
    """Keeps nothing: only which pages are asked for is of interest."""

    def reserve(self, version: Version) -> None:
        """Do nothing."""

    def put(self, version: Version, image: bytes | bytearray | memoryview | None) -> None:
        """Do nothing."""


class Lending:
    """What a file held before it was changed. All methods block.

    Args:
        image: the file.
        pages: how many pages it has.
        memory_bytes: for pages that are kept in memory; others wait in a file without a name.
    """

    def __init__(self, image: Image, *, pages: int, memory_bytes: int) -> None:
        self._image = image
        self._pages = pages
        self._shelf = Shelf(image.path.parent, page_size=image.page_size, memory_bytes=memory_bytes)

    def read(self, parts: Iterable[tuple[SegmentIndex, TXID, TXID]]) -> None:
        """Read all pages that segments may need.

        Args:
            parts: each segment's index, and the transactions behind which, and up to which, it is applied; the newest
                segment first.

        Raises:
            NoSpace: there is no room to keep them.
            FileUnusable: the file cannot be read.
        """
        wanted = Wanted(_Nobody())
        for index, after, through in parts:
            wanted.answer(index, after, through)
            wanted.ask(index)
        wanted.cut(self._pages)
        size = self._image.page_size
        buffer = bytearray(size)
        for pgno in wanted.pages:
            self._image.read((pgno - 1) * size, buffer)
            self._shelf.reserve(Version(pgno))
            self._shelf.put(Version(pgno), buffer)

    def answer(self, workshop: Workshop) -> None:
        """Give the pages that are still asked for."""
        workshop.wanted.cut(self._pages)
        for pgno, version in workshop.wanted.pages.items():
            workshop.shelf.put(version, self._shelf.take([pgno]))

    def close(self) -> None:
        """Let go of them."""
        self._shelf.close()
