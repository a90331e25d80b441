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

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.wal.header import HEADER_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

FRAME_HEADER_BYTES = 24
_NO_SALTS = bytes(8)


class SaltsMoved(Exception):
    """The WAL was reset between the look at its index and the read of its frames."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """Consecutive frames of one WAL, in order; the four sequences run in parallel."""

    pgnos: Sequence[int]
    commit_pages: Sequence[int]  # database size in pages behind a commit frame, 0 in any other
    images: Sequence[memoryview]  # views into the bytes that were read, page_size bytes each
    checksums: Sequence[bytes]  # the 8 bytes of cumulative checksum in each frame's header
    bare: bool = False  # some frames have zeros for salts: nothing in them says which WAL they belong to

    def __len__(self) -> int:
        return len(self.pgnos)

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
        return Frames(pgnos=(), commit_pages=(), images=(), checksums=())
    pgnos, commit_pages, found, checksums = zip(*struct.iter_unpack(f">II8s8s{page_size}x", raw), strict=True)
    bare = found.count(salts) != len(found)
    if bare and not set(found) <= {salts, _NO_SALTS}:
        raise SaltsMoved
    images = [raw[at : at + page_size] for at in range(FRAME_HEADER_BYTES, raw.nbytes, width)]
    return Frames(pgnos=pgnos, commit_pages=commit_pages, images=images, checksums=checksums, bare=bare)
