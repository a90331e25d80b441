from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import apsw
import pytest

from replicad.wal import HEADER_BYTES, parse_header

if TYPE_CHECKING:
    from pathlib import Path

PAGE_SIZES = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536]


def headers(folder: Path, page_size: int, *, resets: int = 0) -> list[bytes]:
    """Return the headers of a WAL that SQLite wrote: the first, and one after each reset."""
    connection = apsw.Connection(str(folder / "app.db"))
    try:
        connection.pragma("page_size", page_size)
        connection.pragma("journal_mode", "wal")
        connection.execute("CREATE TABLE t (v)")
        found = [(folder / "app.db-wal").read_bytes()[:HEADER_BYTES]]
        for _ in range(resets):
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
            connection.execute("INSERT INTO t VALUES (1)")
            found.append((folder / "app.db-wal").read_bytes()[:HEADER_BYTES])
        return found
    finally:
        connection.close()


def checksummed(fields: bytes, order: str) -> bytes:
    """Return 24 bytes of header with the checksum behind them, written down once more from the format's text."""
    first = second = 0
    words = struct.unpack(f"{order}6I", fields)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) % 2**32
        second = (second + odd + first) % 2**32
    return fields + struct.pack(">II", first, second)


def crafted(*, magic: int = 0x377F0682, version: int = 3_007_000, page_size: int = 4096) -> bytes:
    """Return a header with a right checksum, whatever else it says."""
    fields = struct.pack(">IIII8s", magic, version, page_size, 7, b"saltsalt")
    return checksummed(fields, ">" if magic & 1 else "<")


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_what_sqlite_writes(tmp_path: Path, page_size: int) -> None:
    """A header of SQLite's own is read for every page size, the largest of them among the others."""
    (raw,) = headers(tmp_path, page_size)
    found = parse_header(raw)
    assert found is not None
    assert (found.page_size, found.salts) == (page_size, raw[16:24])


def test_a_reset_shows(tmp_path: Path) -> None:
    """At each reset salt-1 rises by one, as the sequence does, and salt-2 is another: positions rest on it."""
    found = [parse_header(raw) for raw in headers(tmp_path, 4096, resets=3)]
    salts = [header.salts for header in found if header is not None]
    first = int.from_bytes(salts[0][:4], "big")
    assert [int.from_bytes(salt[:4], "big") for salt in salts] == [first, first + 1, first + 2, first + 3]
    assert len({salt[4:] for salt in salts}) == 4
    assert [header.checkpoint_sequence for header in found if header is not None] == [0, 1, 2, 3]


@pytest.mark.parametrize(("magic", "order"), [(0x377F0682, "<"), (0x377F0683, ">")])
def test_both_byte_orders(magic: int, order: str) -> None:
    """A WAL of a machine with the other byte order is read too: the magic says how its checksum adds up."""
    raw = crafted(magic=magic)
    assert raw == checksummed(raw[:24], order)
    found = parse_header(raw)
    assert found is not None
    assert (found.page_size, found.salts, found.checkpoint_sequence) == (4096, b"saltsalt", 7)


def test_65536_as_stored() -> None:
    """A page size of 65536 stands there as 1 in some descriptions of the format, and means the same."""
    found = parse_header(crafted(page_size=1))
    assert found is not None
    assert found.page_size == 65536


@pytest.mark.parametrize("length", range(HEADER_BYTES))
def test_a_header_that_is_being_written(length: int) -> None:
    """An empty WAL and any part of a header are no header, and no error."""
    assert parse_header(crafted()[:length]) is None


def test_what_follows_does_not_matter() -> None:
    """A header is read from the front of whatever was read of the file."""
    assert parse_header(crafted() + bytes(100)) == parse_header(crafted())


@pytest.mark.parametrize("bit", range(HEADER_BYTES * 8))
def test_any_flipped_bit(bit: int) -> None:
    """A header with any bit flipped is none: half of it may be the old one's, half the new one's.

    Seen to fail, for the bits of salts, sequence and page size, with the checksum not looked at.
    """
    raw = bytearray(crafted())
    raw[bit // 8] ^= 1 << bit % 8
    assert parse_header(raw) is None


@pytest.mark.parametrize(
    "raw",
    [
        crafted(magic=0x377F0684),
        crafted(version=3_007_001),
        crafted(page_size=0),
        crafted(page_size=256),
        crafted(page_size=1000),
        crafted(page_size=131072),
        bytes(HEADER_BYTES),
    ],
    ids=["magic", "version", "no page", "too small", "no power of two", "too large", "zeros"],
)
def test_what_this_version_does_not_know(raw: bytes) -> None:
    """A header with a right checksum and another format, version or an impossible page size is none."""
    assert parse_header(raw) is None
