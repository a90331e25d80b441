"""The write-ahead log as bytes: its header, its frames, and the checksum of the state they add up to."""

from replicad.wal.frames import FRAME_HEADER_BYTES, Frames, SaltsMoved, frame_offset, parse_frames
from replicad.wal.header import HEADER_BYTES, WALHeader, parse_header
from replicad.wal.observations import Observations
from replicad.wal.pagetable import PageTable, page_hash

__all__ = [
    "FRAME_HEADER_BYTES",
    "HEADER_BYTES",
    "Frames",
    "Observations",
    "PageTable",
    "SaltsMoved",
    "WALHeader",
    "frame_offset",
    "page_hash",
    "parse_frames",
    "parse_header",
]
