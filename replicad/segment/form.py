"""The shape of a segment: magic numbers, fixed-size records, limits. docs/format.md holds the tables.

    head     magic, version, length, header
    blocks   zstd frames, each of whole page images; the only one of a small segment may refer to older pages
    index    transactions, page numbers, blocks, references
    trailer  fixed size: where the index is, hashes

All integers are little endian and unsigned. Nothing in the head is known only at the end, so that a
transaction larger than memory streams through; nothing before the trailer is needed to find the rest,
so that a reader of a large object asks for its end first.

Version 1 is read and not written any more. Version 2 has the same four parts; the header is binary instead of
JSON, small segments have an index of variable-length integers, and the trailer has no room for what they say.
"""

from __future__ import annotations

import struct
from typing import Final

VERSION: Final = 2
"""The version that is written, and the newest that is read."""

FIRST_VERSION: Final = 1
"""The oldest version that is read."""

HEAD_MAGIC: Final = b"\x89RPDSEG\n"  # a high bit and a newline: text-mode transfers and 7-bit channels show
TRAILER_MAGIC: Final = b"RPDTAIL\n"

HEAD: Final = struct.Struct("<8sII")
"""magic, version, bytes of the header that follows."""

TRANSACTION: Final = struct.Struct("<QQII")
"""commit_ms, checksum after, database size after in pages, frames."""

PGNO: Final = struct.Struct("<I")
"""The page number of one frame."""

BLOCK: Final = struct.Struct("<IIQ")
"""stored bytes, frames, xxh3_64 of the stored bytes."""

TRAILER_1: Final = struct.Struct("<QQQQIIQQQQ8sQ8sQQ16sQII8s")
"""Of version 1; `replicad.segment.trailer` names the fields in order."""

TRAILER: Final = struct.Struct("<HHIIQQII8s")
"""See the table in docs/format.md; `replicad.segment.compact` names the fields in order."""

SEAL: Final = struct.Struct("<II8s")
"""version, size of the trailer, magic: the last bytes of every version's."""

TRAILER_BYTES: Final = TRAILER_1.size
"""The end of an object that holds the trailer of any version."""

OBJECT_HASH_OFFSET: Final = 112
"""Offset in the trailer of the object's hash, which covers everything before it."""

TRAILER_HASH_OFFSET: Final = 128
"""Offset in the trailer of its own hash, so that it can be trusted when only the end was fetched."""

HEAD_BYTES_HINT: Final = 512
"""A read this long from the front holds the whole head of every segment written so far."""

FLAG_WAL: Final = 1
"""In the trailer's flags: there was a WAL, so its salts are known."""

FLAG_WIDE: Final = 2
"""In the trailer's flags: the columns of the index are records of fixed size."""

FLAG_PACKED: Final = 4
"""In the trailer's flags: the columns of the index are a zstd frame."""

MAX_HEADER_BYTES: Final = 64 << 10
MAX_BLOCK_BYTES: Final = 64 << 20
"""Raw bytes of the largest block that is read."""

MAX_TRANSACTIONS: Final = 1 << 20
"""Transactions in one segment: a reader keeps an object for each."""

MAX_BLOCKS: Final = 1 << 20
MAX_FRAMES: Final = 1 << 28
"""Frames in one segment: a reader keeps 4 bytes for each."""

MAX_COMPACT: Final = 4096
"""Transactions, and frames, in an index of integers of variable length: a reader makes an object of each."""

MAX_COMPACT_BYTES: Final = 256 << 10
"""The columns of such an index, unpacked."""

MAX_REFERENCES: Final = 64
"""Pages that a segment refers to."""

MAX_REFERENCE_BYTES: Final = 256 << 10
"""What these pages are together, at most."""

MAX_REFERRING_BYTES: Final = 256 << 10
"""Page images in a segment that refers to others: one block, which a reader keeps until its turn comes."""
