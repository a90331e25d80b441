"""The 32 bytes at the front of a WAL (https://www.sqlite.org/fileformat2.html, section 4.1)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from replicad.position import is_page_size, page_size_of

if TYPE_CHECKING:
    from typing_extensions import Buffer

HEADER_BYTES = 32
_LITTLE_ENDIAN_MAGIC = 0x377F0682  # the checksums add up little-endian words; +1: big-endian words
_BIG_ENDIAN_MAGIC = 0x377F0683
_FORMAT_VERSION = 3_007_000
_HEADER = struct.Struct(">IIII8sII")
_MASK = 0xFFFFFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class WALHeader:
    """A valid WAL header."""

    page_size: int
    salts: bytes  # 8 bytes; salt-1 rises by one at each reset, salt-2 is random
    checkpoint_sequence: int


def parse_header(raw: Buffer) -> WALHeader | None:
    """Return the header, or None when these bytes are not one (an empty WAL, or one being reset)."""
    if memoryview(raw).nbytes < HEADER_BYTES:
        return None
    magic, version, page_size, sequence, salts, *stored = _HEADER.unpack_from(raw)
    if magic not in (_LITTLE_ENDIAN_MAGIC, _BIG_ENDIAN_MAGIC) or version != _FORMAT_VERSION:
        return None
    order: Literal["<", ">"] = "<" if magic == _LITTLE_ENDIAN_MAGIC else ">"
    if _checksum(memoryview(raw)[:24], order) != tuple(stored):
        return None
    page_size = page_size_of(page_size)
    if not is_page_size(page_size):
        return None
    return WALHeader(page_size=page_size, salts=salts, checkpoint_sequence=sequence)


def _checksum(raw: Buffer, order: Literal["<", ">"]) -> tuple[int, int]:
    first = second = 0
    for even, odd in struct.iter_unpack(f"{order}II", raw):
        first = (first + even + second) & _MASK
        second = (second + odd + first) & _MASK
    return first, second
