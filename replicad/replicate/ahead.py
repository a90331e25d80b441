"""What a database on this disk holds beyond what is stored, told from the files beside it; nothing is opened in it.

It can be told while the WAL is still the one that the state file speaks of. Otherwise it is not known: whatever came
after it may have been checkpointed into the database file.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.replicate.state_file import StateFile, read_state
from replicad.sqlite.wal_file import WALFile
from replicad.wal import FRAME_HEADER_BYTES, frame_offset

if TYPE_CHECKING:
    from pathlib import Path

    from replicad.position import WALPosition

_FRAME = struct.Struct(">II8s8s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """The state file beside a database, and what its WAL holds behind the position in it; None: it cannot be told."""

    state: StateFile
    transactions: int | None
    bytes: int | None


def look_beside(database: Path) -> Beside | None:
    """Return what the files beside a database tell; None when there is no state file to go by. Blocks."""
    state = read_state(database)
    if state is None:
        return None
    wal = WALFile(database)
    try:
        counted = _count(wal, state.wal)
    finally:
        wal.close()
    transactions, size_bytes = counted or (None, None)
    return Beside(state=state, transactions=transactions, bytes=size_bytes)


def _count(wal: WALFile, position: WALPosition) -> tuple[int, int] | None:
    """Return the transactions behind a position and their page bytes; None when it is a position in another WAL."""
    header = wal.header()
    if header is None or header.salts != position.salts:
        return None
    size = header.page_size
    if position.frame and wal.frame_checksum(position.frame, page_size=size) != position.frame_checksum:
        return None
    transactions = committed = 0
    descriptor = os.open(wal.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        frame = position.frame + 1
        while len(raw := os.pread(descriptor, FRAME_HEADER_BYTES, frame_offset(frame, size))) == FRAME_HEADER_BYTES:
            _, commit_pages, salts, _ = _FRAME.unpack(raw)
            if salts != header.salts:
                break
            if commit_pages:
                transactions, committed = transactions + 1, frame - position.frame
            frame += 1
    finally:
        os.close(descriptor)
    return transactions, committed * size
