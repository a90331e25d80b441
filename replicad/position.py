"""Where a history stands: epochs, transaction ids, page numbers, and the place reached in the WAL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

Epoch = NewType("Epoch", int)
"""Number of an ownership period, from 1; a folder that its owner alone writes."""

TXID = NewType("TXID", int)
"""Number of a committed transaction since the replica began, from 1, across epochs; 0 is before all."""

Pgno = NewType("Pgno", int)
"""SQLite's page number, from 1."""

LOCK_BYTE_OFFSET = 1 << 30
"""Byte offset of SQLite's locking bytes (os.h, PENDING_BYTE); the page that holds them stores nothing."""

MIN_PAGE_SIZE = 512
MAX_PAGE_SIZE = 65536


def lock_page(page_size: int) -> Pgno:
    """Return the page that never appears in a WAL, is never hashed, and reads as zeros in an image."""
    return Pgno(LOCK_BYTE_OFFSET // page_size + 1)


def page_size_of(stored: int) -> int:
    """Return the page size that a header of SQLite's means: the largest does not fit its field, and is stored as 1."""
    return MAX_PAGE_SIZE if stored == 1 else stored


def is_page_size(number: int) -> bool:
    """Return whether SQLite allows pages of this many bytes."""
    return MIN_PAGE_SIZE <= number <= MAX_PAGE_SIZE and number & (number - 1) == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A transaction on the line of history, and the state of the database after it."""

    epoch: Epoch
    txid: TXID
    checksum: int  # XOR over pages, see docs/format.md
    pages: int  # database size after the transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class WALPosition:
    """How far a WAL was consumed: everything up to and including `frame` (0: nothing but the header)."""

    salts: bytes  # 8 bytes of the WAL header; b"" when there was no WAL
    frame: int
    frame_checksum: bytes  # 8 bytes, the cumulative checksum in that frame's header; b"" for frame 0


NO_WAL = WALPosition(salts=b"", frame=0, frame_checksum=b"")
"""The position in a database whose WAL is absent or empty."""
