"""A WAL as anybody can read it who asks nobody: what is committed by its index, and the bytes of its frames."""

from __future__ import annotations

import mmap
import os
import struct
from typing import TYPE_CHECKING

from replicad import zstd
from replicad.config import SETTINGS
from replicad.wal import frame_offset

if TYPE_CHECKING:
    from pathlib import Path

_PAGE_SIZE = 4096  # of every database here

_FIELDS = struct.Struct("=16xI12x8s")  # last frame, salts: from the beginning of the -shm file
_MAPPED_BYTES = 4096
_LEVEL = next(int(row.default or 0) for row in SETTINGS if row.name == "compression_level")


class RawWAL:
    """The WAL of a database that somebody has open. No lock is held: what it says may be torn, and gone at any time."""

    def __init__(self, database: Path) -> None:
        index = os.open(f"{database}-shm", os.O_RDONLY)
        self._index = mmap.mmap(index, _MAPPED_BYTES, prot=mmap.PROT_READ)
        os.close(index)
        self._wal = os.open(f"{database}-wal", os.O_RDONLY)

    def look(self) -> tuple[int, bytes]:
        """Return the number of the last frame that is committed, and the salts of the WAL."""
        return _FIELDS.unpack_from(self._index)

    def read(self, after: int, last: int) -> bytes:
        """Return the frames behind one number, up to another."""
        begin, end = frame_offset(after + 1, _PAGE_SIZE), frame_offset(last + 1, _PAGE_SIZE)
        return os.pread(self._wal, end - begin, begin)


def pack(frames: bytes | bytearray) -> bytes:
    """Return frames packed as replicad does by default."""
    return zstd.compress(frames, _LEVEL)
