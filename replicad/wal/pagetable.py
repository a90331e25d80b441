"""The hash of every page, and their XOR: the checksum that names a state of the database.

The checksum of a state is the XOR, over all pages but the lock page, of xxh3_64(page, seed=pgno). It is
kept up to date page by page, so that every transaction can carry the checksum of the state it made.

A page that a growing database skipped (no frame wrote it) reads as zeros once the file reaches that far,
and is hashed as such.
"""

from __future__ import annotations

from array import array
from functools import reduce
from operator import xor
from typing import TYPE_CHECKING

import xxhash

from replicad.position import lock_page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

_ABSENT = 0  # a page without a hash yet; it adds nothing to the XOR


def page_hash(image: Buffer, pgno: int) -> int:
    """Return the hash of one page: 64 bits, seeded with its number so that swapped pages show."""
    return xxhash.xxh3_64_intdigest(image, pgno)


def no_hashes(pages: int) -> array[int]:
    """Return where the hashes of so many pages can be noted, none of them so far."""
    return array("Q", bytes(8 * pages))


class PageTable:
    """Eight bytes a page, and the checksum they add up to."""

    def __init__(self, page_size: int) -> None:
        self.page_size = page_size
        self.checksum = 0
        self._pages = 0
        self._hashes = array("Q")
        self._lock_page = lock_page(page_size)

    @classmethod
    def of(cls, page_size: int, hashes: array[int], checksum: int) -> PageTable:
        """Return the table of a state whose pages were hashed elsewhere; takes the array over.

        Args:
            page_size: in bytes.
            hashes: of every page by its number, from 1 on (`page_hash`); 0 for the lock page.
            checksum: what they add up to.
        """
        table = cls(page_size)
        table.checksum, table._pages, table._hashes = checksum, len(hashes), hashes
        return table

    @property
    def pages(self) -> int:
        """Size of the database in pages, as of the last commit."""
        return self._pages

    @property
    def first_hash(self) -> int:
        """The hash of page 1; 0 while there is no page."""
        return self._hashes[0] if self._hashes else _ABSENT

    def hash_of(self, pgno: int) -> int:
        """Return the hash of a page of the state as of the last commit."""
        return self._hashes[pgno - 1]

    def hashes(self) -> array[int]:
        """Return a copy of what `of` takes."""
        return self._hashes[:]

    def copy(self) -> PageTable:
        """Return an independent table of the same state."""
        other = PageTable(self.page_size)
        other.checksum, other._pages, other._hashes = self.checksum, self._pages, self._hashes[:]
        return other

    def write(self, pgnos: Sequence[int], images: Sequence[Buffer]) -> None:
        """Take in pages of the transaction now open; writing the same pages again changes nothing."""
        if not pgnos:
            return
        self._reach(max(pgnos))
        hashes, checksum, digest = self._hashes, self.checksum, xxhash.xxh3_64_intdigest
        for pgno, image in zip(pgnos, images, strict=True):
            new = digest(image, pgno)
            checksum ^= hashes[pgno - 1] ^ new
            hashes[pgno - 1] = new
        self.checksum = checksum

    def write_transactions(
        self, pgnos: Sequence[int], images: Sequence[Buffer], commit_pages: Sequence[int]
    ) -> tuple[list[int], list[int]]:
        """Take in whole transactions at once, which costs less for each.

        Args:
            pgnos: page numbers, in WAL order.
            images: the pages.
            commit_pages: for each, the size of the database in pages when it ends a transaction, else 0; the last
                one ends one.

        Returns:
            For each transaction the checksum of the state behind it; and the hash of page 1 behind each that wrote it.
        """
        hashes, checksum, pages_before = self._hashes, self.checksum, self._pages
        checksums, firsts, first_written = list[int](), list[int](), False
        for pgno, new, pages in zip(pgnos, map(xxhash.xxh3_64_intdigest, images, pgnos), commit_pages, strict=True):
            place = pgno - 1
            try:
                checksum ^= hashes[place] ^ new
            except IndexError:
                self._reach(pgno)
                checksum ^= new
            hashes[place] = new
            if not place:
                first_written = True
            if pages:
                if pages != pages_before or len(hashes) != pages:
                    self.checksum = checksum
                    checksum, pages_before = self.commit(pages), pages
                checksums.append(checksum)
                if first_written:
                    firsts.append(hashes[0])
                    first_written = False
        self.checksum = checksum
        return checksums, firsts

    def commit(self, pages: int) -> int:
        """Close the open transaction with the database at this size; return the checksum of the state."""
        before = self._pages
        self._reach(pages)
        if len(self._hashes) > pages:
            self.checksum = reduce(xor, self._hashes[pages:], self.checksum)
            del self._hashes[pages:]
        if pages > before:
            self._fill_skipped(before, pages)
        self._pages = pages
        return self.checksum

    def differing(self, first: int, images: Sequence[Buffer]) -> list[int]:
        """Return which of these consecutive pages (numbers, from `first`) are not as the table has them."""
        hashes, digest, known = self._hashes, xxhash.xxh3_64_intdigest, self._pages
        return [
            pgno
            for pgno, image in enumerate(images, first)
            if pgno != self._lock_page and (pgno > known or hashes[pgno - 1] != digest(image, pgno))
        ]

    def _reach(self, pages: int) -> None:
        missing = pages - len(self._hashes)
        if missing > 0:
            self._hashes += no_hashes(missing)

    def _fill_skipped(self, before: int, pages: int) -> None:
        fresh = self._hashes[before:pages]
        absent = fresh.count(_ABSENT) - (before < self._lock_page <= pages)
        if absent == 0:
            return
        zeros = bytes(self.page_size)
        for pgno in range(before + 1, pages + 1):
            if self._hashes[pgno - 1] == _ABSENT and pgno != self._lock_page:
                self._hashes[pgno - 1] = page_hash(zeros, pgno)
                self.checksum ^= self._hashes[pgno - 1]
