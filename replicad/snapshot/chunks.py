"""The pieces of a database image: how large, how named, how stored.

A chunk is a plain zstd frame named by its raw bytes (`naming.py`), so that equal pieces are stored once and any
tool can unpack them.
"""

from __future__ import annotations

from replicad import zstd
from replicad.errors import Damaged
from replicad.snapshot.naming import PLAIN_NAMES, ChunkNames

MIB = 1 << 20
GIB = 1 << 30
MAX_CHUNK_BYTES = 64 * MIB
"""Raw bytes of the largest chunk that is read; `chunk_pages` never gives a larger one."""

_KEPT_FACTOR = 4  # a smaller mismatch costs less than sending every chunk again


def chunk_pages(page_size: int, pages: int, previous: int | None) -> int:
    """Return how many pages a chunk of the next snapshot has; `previous` is the newest manifest's number.

    1 MiB up to a database of 1 GiB, 4 MiB up to 16 GiB, 16 MiB above. Another number than the previous
    gives other chunks and so a whole new upload: the previous one stays while it is within a factor of 4.
    """
    database_bytes = page_size * pages
    if database_bytes <= GIB:
        wanted = MIB // page_size
    elif database_bytes <= 16 * GIB:
        wanted = 4 * MIB // page_size
    else:
        wanted = 16 * MIB // page_size
    if previous is not None and wanted <= previous * _KEPT_FACTOR and previous <= wanted * _KEPT_FACTOR:
        return previous
    return wanted


def chunk_name(raw: bytes | bytearray | memoryview) -> str:
    """Return the name of a chunk of a plain replica: the SHA-256 of its raw bytes, 64 hexadecimal digits."""
    return PLAIN_NAMES.name(raw)


def compress_chunk(raw: bytes | bytearray | memoryview, level: int = 3) -> bytes:
    """Return the chunk as it is stored: one zstd frame."""
    return zstd.compress(raw, level)


def decompress_chunk(
    stored: bytes | memoryview, *, raw_bytes: int, name: str, what: str, names: ChunkNames = PLAIN_NAMES
) -> bytes:
    """Return the `raw_bytes` bytes of a stored chunk, proven by its name; `what` names it in messages.

    `names` is how the replica names its chunks.

    Raises:
        Damaged: not a frame of that size, or the content has another name.
    """
    if not 0 < raw_bytes <= MAX_CHUNK_BYTES:
        raise Damaged(what=what, where="raw size", expected=f"1 to {MAX_CHUNK_BYTES} bytes", found=raw_bytes)
    raw = zstd.decompress(stored, raw_bytes=raw_bytes, what=what, where="zstd frame")
    if not names.fits(name, raw):
        raise Damaged(what=what, where=names.method, expected=name, found=names.name(raw))
    return raw
