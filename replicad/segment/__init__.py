"""Segments: consecutive transactions as one immutable, self-describing object (docs/format.md)."""

from replicad.segment.decoder import decode, read_block, read_index
from replicad.segment.encoder import PageImage, SegmentEncoder
from replicad.segment.form import (
    HEAD_BYTES_HINT,
    MAX_FRAMES,
    MAX_TRANSACTIONS,
    TRAILER_BYTES,
)
from replicad.segment.header import SegmentHeader, read_head
from replicad.segment.index import Block, SegmentIndex, Transaction
from replicad.segment.trailer import Trailer, read_trailer

__all__ = [
    "HEAD_BYTES_HINT",
    "MAX_FRAMES",
    "MAX_TRANSACTIONS",
    "TRAILER_BYTES",
    "Block",
    "PageImage",
    "SegmentEncoder",
    "SegmentHeader",
    "SegmentIndex",
    "Trailer",
    "Transaction",
    "decode",
    "read_block",
    "read_head",
    "read_index",
    "read_trailer",
]
