"""Which parts of a database were written since the last snapshot: only their chunks can have changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.replicate.pinned import EXTENT_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable


class WrittenExtents:
    """The numbers, from 0, of the extents (EXTENT_BYTES each) that were written to.

    Args:
        page_size: in bytes.
    """

    def __init__(self, page_size: int) -> None:
        self._numbers: set[int] = set()
        self._extent_pages = EXTENT_BYTES // page_size

    def __len__(self) -> int:
        """Return how many `take` would return; may be asked at any time."""
        return len(self._numbers)

    def add(self, pgnos: Iterable[int]) -> None:
        """Remember that these pages were written."""
        extent_pages = self._extent_pages
        self._numbers.update([(pgno - 1) // extent_pages for pgno in pgnos])

    def cut(self, pages: int, before: int) -> None:
        """Remember that the pages behind this size are gone: they may come back with other contents, unwritten."""
        self.add(range(pages + 1, before + 1))

    def take(self) -> set[int]:
        """Return those that were written since the last call."""
        taken, self._numbers = self._numbers, set()
        return taken
