"""How little the strongest compressors make of what has to be stored: nobody who stores each version gets far below.

Both take a hundred times what the tools take, and more; that they do is part of the answer.
"""

from __future__ import annotations

import lzma
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zstandard

from bench.peers.work import perform

if TYPE_CHECKING:
    from collections.abc import Mapping

_SAMPLE_BYTES = 12 << 20
_PIECE_BYTES = 4 << 20
_WAL_HEADER_BYTES = 32
_FRAME_HEADER_BYTES = 24
_PAGE_BYTES = 4_096
_CHECKSUM_BYTES = 8


def packed_share(pages: bytes) -> float:
    """Return what xz -9e or zstd -19, whichever is better, leaves of page images, all of them in one piece."""
    zstd = zstandard.ZstdCompressionParameters.from_level(19, window_log=24, enable_ldm=True)
    strongest = zstandard.ZstdCompressor(compression_params=zstd).compress(pages)
    other = lzma.compress(pages, preset=9 | lzma.PRESET_EXTREME)
    return min(len(strongest), len(other)) / len(pages)


def of_database(path: Path) -> float:
    """Return that for a piece out of the middle of a database."""
    return packed_share(_sample(path))


def within(path: Path, cpu_seconds_per_gb: float) -> float:
    """Return the least that any level of zstd leaves of it, within so much processor time, in pieces of 4 MiB."""
    pages = _sample(path)
    pieces = [pages[at : at + _PIECE_BYTES] for at in range(0, len(pages), _PIECE_BYTES)]
    least = 1.0
    for level in range(1, zstandard.MAX_COMPRESSION_LEVEL + 1):
        compressor = zstandard.ZstdCompressor(level=level)
        began = time.process_time()
        packed_bytes = sum(len(compressor.compress(piece)) for piece in pieces)
        if (time.process_time() - began) / len(pages) * 1e9 > cpu_seconds_per_gb:
            break
        least = min(least, packed_bytes / len(pages))
    return least


def _sample(path: Path) -> bytes:
    with path.open("rb") as database:
        database.seek(path.stat().st_size // 2 // _PAGE_BYTES * _PAGE_BYTES)
        return database.read(_SAMPLE_BYTES)


def of_wal(database: Path, work: Mapping[str, Any]) -> float:
    """Return that for the frames which a piece of work writes, each version of a page counted, of the WAL's bytes.

    With 8 bytes a commit, for a checksum of the state behind it: nothing makes those smaller.
    """
    with closing(sqlite3.connect(database, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM sqlite_master").fetchone()  # the WAL stays: no frame is overwritten
        once = {name: said for name, said in work.items() if name not in {"seconds", "rate", "writers"}}
        commits = perform(database, {**once, "commits": _SAMPLE_BYTES // _PAGE_BYTES})
        wal = Path(f"{database}-wal").read_bytes()[_WAL_HEADER_BYTES:]
    frame = _FRAME_HEADER_BYTES + _PAGE_BYTES
    whole = range(0, len(wal) // frame * frame, frame)
    pages = b"".join(wal[at + _FRAME_HEADER_BYTES : at + frame] for at in whole)
    return (packed_share(pages) * len(pages) + _CHECKSUM_BYTES * len(commits.ended)) / len(wal)
