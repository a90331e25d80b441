"""LTX files and whole Litestream replicas made by hand: what a test needs that no binary would write on demand."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import fastcrc.crc64
import lz4.block

if TYPE_CHECKING:
    import random

FLAG = 1 << 63


def encode_ltx(  # noqa: PLR0913 - one for each field
    page_size: int, pages: dict[int, bytes], *, first: int, last: int, size: int, ms: int = 1_700_000_000_000
) -> bytes:
    """Return a file without checksums of the state, as Litestream writes it; `size` is in pages."""
    body = bytearray(struct.pack(">4sIIIQQq60x", b"LTX1", 2, page_size, size, first, last, ms))
    crc = fastcrc.crc64.go_iso(bytes(body))
    index = bytearray()
    for pgno in sorted(pages):
        packed = lz4.block.compress(pages[pgno], store_size=False)
        head = struct.pack(">IHI", pgno, 1, len(packed))
        index += varint(pgno) + varint(len(body)) + varint(len(head) + len(packed))
        body += head + packed
        crc = fastcrc.crc64.go_iso(pages[pgno], fastcrc.crc64.go_iso(head, crc))
    index += b"\0"
    tail = bytes(6) + bytes(index) + struct.pack(">QQ", len(index), 0)
    return bytes(body) + tail + struct.pack(">Q", fastcrc.crc64.go_iso(tail, crc) | FLAG)


def varint(number: int) -> bytes:
    """Return an unsigned number as seven bits in each byte."""
    packed = bytearray()
    while number >= 0x80:
        packed.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(packed) + bytes([number])


@dataclass
class FakeReplica:
    """A history of states, made up, and the files that Litestream would have of it."""

    page_size: int = 512
    states: list[list[bytes]] = field(default_factory=list)  # behind transaction 1, 2 and so on: its pages
    written: list[dict[int, bytes]] = field(default_factory=list)  # by each

    def commit(self, dice: random.Random, *, size: int, writes: int) -> None:
        """Add a transaction that leaves `size` pages; the first one writes all, and pages that are new are written."""
        before = self.states[-1] if self.states else []
        wanted = set(range(len(before) + 1, size + 1)) | {dice.randint(1, size) for _ in range(writes)}
        pages = {pgno: dice.randbytes(self.page_size // 4) * 4 for pgno in wanted}
        after = [pages.get(pgno) or before[pgno - 1] for pgno in range(1, size + 1)]
        self.states.append(after)
        self.written.append(pages)

    def file(self, first: int, last: int) -> bytes:
        """Return the file of some transactions."""
        size = len(self.states[last - 1])
        wanted = {pgno for pages in self.written[first - 1 : last] for pgno in pages if pgno <= size}
        if first == 1:
            wanted = set(range(1, size + 1))
        state = self.states[last - 1]
        pages = {pgno: state[pgno - 1] for pgno in wanted}
        return encode_ltx(self.page_size, pages, first=first, last=last, size=size, ms=1_700_000_000_000 + last)

    def image(self) -> bytes:
        """Return the newest state."""
        return b"".join(self.states[-1])


def key(level: int, first: int, last: int, *, bucket: bool = False) -> str:
    """Return the key of a file, in a folder or in a bucket."""
    name = f"{first:016x}-{last:016x}.ltx"
    return f"{level:04x}/{name}" if bucket else f"ltx/{level}/{name}"
