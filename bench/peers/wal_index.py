"""The index of a WAL, as SQLite keeps it for all who have the database open: what is committed by now."""

from __future__ import annotations

import mmap
import os
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_FIELDS = struct.Struct("=16xI12x8s")  # last frame, salts: from the beginning of the -shm file
_MAPPED_BYTES = 4096


class WALIndex:
    """Looks at it without a lock: what it says may be torn."""

    def __init__(self, database: Path) -> None:
        file = os.open(f"{database}-shm", os.O_RDONLY)
        self._mapped = mmap.mmap(file, _MAPPED_BYTES, prot=mmap.PROT_READ)
        os.close(file)

    def look(self) -> tuple[int, bytes]:
        """Return the number of the last frame that is committed, and the salts of the WAL."""
        return _FIELDS.unpack_from(self._mapped)
