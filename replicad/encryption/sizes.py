"""How large encrypted objects are, and where in them a range of the content lies."""

from __future__ import annotations

MAGIC = b"\x89RPDENC\n"
HEADER_BYTES = 52
PIECE_BYTES = 64 << 10
"""Content of a piece; that of the last one is shorter, and of an empty object nothing."""

TAG_BYTES = 16
SEALED_PIECE_BYTES = PIECE_BYTES + TAG_BYTES


def sealed_bytes(content_bytes: int) -> int:
    """Return the size of the encrypted object with that much content."""
    pieces = max(1, -(-content_bytes // PIECE_BYTES))
    return HEADER_BYTES + content_bytes + pieces * TAG_BYTES


def content_bytes(sealed_bytes: int) -> int:
    """Return how much content an encrypted object of a size has; 0 for a size that none has: reading it tells."""
    body_bytes = sealed_bytes - HEADER_BYTES
    pieces = -(-body_bytes // SEALED_PIECE_BYTES)
    return max(0, body_bytes - pieces * TAG_BYTES)


def piece_of(offset: int) -> int:
    """Return the number of the piece that holds the content's byte at an offset."""
    return offset // PIECE_BYTES


def piece_offset(number: int) -> int:
    """Return where in the object a piece begins."""
    return HEADER_BYTES + number * SEALED_PIECE_BYTES
