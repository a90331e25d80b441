"""Segments: consecutive transactions as one immutable, self-describing object (docs/format.md)."""

from replicad.segment.buffer import BlockBuffer
from replicad.segment.compact import CompactTrailer, most_references
from replicad.segment.decoder import decode, read_block, read_block_into, read_index, read_trailer
from replicad.segment.encoder import PageImage, SegmentEncoder
from replicad.segment.form import (
    HEAD_BYTES_HINT,
    MAX_FRAMES,
    MAX_REFERRING_BYTES,
    MAX_TRANSACTIONS,
    TRAILER_BYTES,
)
from replicad.segment.header import SegmentHeader, read_head
from replicad.segment.index import Block, SegmentIndex, Transaction
from replicad.segment.rollup import (
    MEMBER,
    ROLLUP_HEAD_BYTES,
    ROLLUP_TRAILER,
    Directory,
    Member,
    RollUpTrailer,
    check_rollup_head,
    decode_rollup,
    encode_rollup,
    read_directory,
    read_rollup_trailer,
)
from replicad.segment.trailer import Trailer

__all__ = [
    "HEAD_BYTES_HINT",
    "MAX_FRAMES",
    "MAX_REFERRING_BYTES",
    "MAX_TRANSACTIONS",
    "MEMBER",
    "ROLLUP_HEAD_BYTES",
    "ROLLUP_TRAILER",
    "TRAILER_BYTES",
    "Block",
    "BlockBuffer",
    "CompactTrailer",
    "Directory",
    "Member",
    "PageImage",
    "RollUpTrailer",
    "SegmentEncoder",
    "SegmentHeader",
    "SegmentIndex",
    "Trailer",
    "Transaction",
    "check_rollup_head",
    "decode",
    "decode_rollup",
    "encode_rollup",
    "most_references",
    "read_block",
    "read_block_into",
    "read_directory",
    "read_head",
    "read_index",
    "read_rollup_trailer",
    "read_trailer",
]
