"""Frames: a page image behind a 24-byte header (https://www.sqlite.org/fileformat2.html, section 4.1).

Which frames are committed is not decided here: SQLite's shared index says so, and only those are read.
What is checked here is that every frame carries the salts of the WAL it was looked for in, since the WAL
may have been reset between the look at the index and the read.

A committed frame may have zeros for salts and checksum. A writer that overwrites a frame of its own open transaction
(one that did not fit its cache) leaves them out of all that it writes from there on, and fills them in when it commits
(wal.c, iReCksum). An older SQLite (seen with 3.40.1, not with 3.54.1) forgets that after a rollback to a savepoint, and
such frames stay so behind their commit. Readers go by the index and do not mind, and so it is here.
"""

from __future__ import annotations

import sys
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.wal.header import HEADER_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

FRAME_HEADER_BYTES = 24
_CHECKSUM_AT = 16  # in a frame's header: behind page number, size of the database (32 bits each) and salts
_WORD_BYTES = 8  # frames are whole words, whatever the page size
_NO_SALTS = 0


class SaltsMoved(Exception):
    """The WAL was reset between the look at its index and the read of its frames."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """Consecutive frames of one WAL, in order; the sequences run in parallel."""

    pgnos: Sequence[int]
    commit_pages: Sequence[int]  # database size in pages behind a commit frame, 0 in any other
    images: Sequence[memoryview]  # views into the bytes that were read, page_size bytes each
    raw: memoryview  # what was read
    bare: bool = False  # some frames have zeros for salts: nothing in them says which WAL they belong to

    def __len__(self) -> int:
        return len(self.pgnos)

    def checksum(self, number: int) -> bytes:
        """Return the 8 bytes of cumulative checksum in the header of one of the frames, counted from 0."""
        at = number * (self.raw.nbytes // len(self)) + _CHECKSUM_AT
        return bytes(self.raw[at : at + 8])

    def committed(self) -> int:
        """Return how many frames there are up to and including the last commit frame."""
        for number in range(len(self.commit_pages), 0, -1):
            if self.commit_pages[number - 1]:
                return number
        return 0


def frame_offset(number: int, page_size: int) -> int:
    """Return the byte offset in the WAL of a frame, counted from 1."""
    return HEADER_BYTES + (number - 1) * (page_size + FRAME_HEADER_BYTES)


def parse_frames(raw: memoryview, *, page_size: int, salts: bytes) -> Frames:
    """Take apart the bytes of whole frames.

    Raises:
        SaltsMoved: a frame belongs to another WAL than the one with these salts.
        ValueError: the length is not one of whole frames.
    """
    width = page_size + FRAME_HEADER_BYTES
    if raw.nbytes % width:
        msg = f"{raw.nbytes} bytes are not whole frames of {width}"
        raise ValueError(msg)
    if not raw.nbytes:
        return Frames(pgnos=(), commit_pages=(), images=(), raw=raw)
    # Column by column: without a step of Python's for each frame, but for its image.
    words, step = raw.cast("Q"), width // _WORD_BYTES
    numbers = array("I", words[::step].tobytes())
    if sys.byteorder == "little":
        numbers.byteswap()
    found, wanted = words[1::step].tolist(), int.from_bytes(salts, sys.byteorder)
    bare = found.count(wanted) != len(found)
    if bare and not set(found) <= {wanted, _NO_SALTS}:
        raise SaltsMoved
    images = [raw[at : at + page_size] for at in range(FRAME_HEADER_BYTES, raw.nbytes, width)]
    return Frames(pgnos=numbers[::2], commit_pages=numbers[1::2], images=images, raw=raw, bare=bare)
