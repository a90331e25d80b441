from __future__ import annotations

import hashlib
import tracemalloc

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from replicad.errors import Damaged
from replicad.snapshot import MAX_CHUNK_BYTES, chunk_name, chunk_pages, compress_chunk, decompress_chunk

WHAT = "epochs/00000001/chunks/x.zst"
MIB, GIB = 1 << 20, 1 << 30

page_sizes = st.sampled_from([512 << shift for shift in range(8)])


@given(raw=st.binary(min_size=1, max_size=5000), level=st.integers(1, 5))
def test_round_trip(raw: bytes, level: int) -> None:
    """A chunk comes back, and is a plain zstd frame for any other tool."""
    stored = compress_chunk(raw, level)
    assert decompress_chunk(stored, raw_bytes=len(raw), name=chunk_name(raw), what=WHAT) == raw
    assert zstandard.ZstdDecompressor().decompress(stored) == raw
    assert chunk_name(memoryview(raw)) == hashlib.sha256(raw).hexdigest()
    assert compress_chunk(bytearray(raw), level) == stored


def test_one_bit_flipped() -> None:
    """A chunk with any bit flipped is damaged, or unpacks to the very same bytes.

    Seen to fail without the comparison of the SHA-256.
    """
    raw = b"".join(hashlib.sha256(bytes([number])).digest() for number in range(40)) + bytes(500)
    stored = compress_chunk(raw)
    damaged = 0
    for offset in range(len(stored)):
        for bit in range(8):
            flipped = bytearray(stored)
            flipped[offset] ^= 1 << bit
            try:
                found = decompress_chunk(bytes(flipped), raw_bytes=len(raw), name=chunk_name(raw), what=WHAT)
            except Damaged:
                damaged += 1
            else:
                assert found == raw
    assert damaged > len(stored) * 7


def test_zero_bytes_and_truncated() -> None:
    """A chunk cut short anywhere, down to zero bytes, or with bytes behind it, is damaged."""
    raw = hashlib.sha256(b"x").digest() * 9
    stored = compress_chunk(raw)
    for wrong in (*(stored[:size] for size in range(len(stored))), stored + b"\0", stored + stored):
        with pytest.raises(Damaged, match=r"x\.zst is damaged"):
            decompress_chunk(wrong, raw_bytes=len(raw), name=chunk_name(raw), what=WHAT)


@given(stored=st.binary(max_size=200), raw_bytes=st.integers(-1, 1 << 40))
def test_random_bytes(stored: bytes, raw_bytes: int) -> None:
    """Bytes that are no chunk are damaged, never another error."""
    with pytest.raises(Damaged):
        decompress_chunk(stored, raw_bytes=raw_bytes, name="0" * 64, what=WHAT)


def test_of_another_database() -> None:
    """A sound chunk under another's name is damaged, and the message says both names."""
    mine, theirs = bytes(512), b"\x01" * 512
    with pytest.raises(Damaged, match=f"expected {chunk_name(mine)}, found {chunk_name(theirs)}"):
        decompress_chunk(compress_chunk(theirs), raw_bytes=512, name=chunk_name(mine), what=WHAT)


def test_decompression_bomb() -> None:
    """A chunk that unpacks to more than the manifest says, or to more than any chunk has, costs no memory.

    Seen to fail without the comparison of the frame's content size in `zstd.decompress`, and without the bound on
    `raw_bytes` in `decompress_chunk`: 1 GiB was unpacked, and only its SHA-256 was found wrong.
    """
    bomb = zstandard.ZstdCompressor(level=1).compress(bytes(GIB))
    tracemalloc.start()
    try:
        for raw_bytes in (MIB, GIB):
            with pytest.raises(Damaged, match=r"content size|raw size"):
                decompress_chunk(bomb, raw_bytes=raw_bytes, name="0" * 64, what=WHAT)
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("database_bytes", "expected_bytes"),
    [
        (0, MIB),
        (GIB, MIB),
        (GIB + 4096, 4 * MIB),
        (16 * GIB, 4 * MIB),
        (16 * GIB + 4096, 16 * MIB),
        (1 << 43, 16 * MIB),
    ],
)
def test_size_of_chunks(database_bytes: int, expected_bytes: int) -> None:
    """Chunks are 1 MiB up to 1 GiB of database, 4 MiB up to 16 GiB, 16 MiB above."""
    assert chunk_pages(4096, database_bytes // 4096, None) * 4096 == expected_bytes


@pytest.mark.parametrize(
    ("database_bytes", "previous_bytes", "expected_bytes"),
    [
        (2 * GIB, MIB, MIB),  # four times too small: not worth a whole new upload
        (20 * GIB, 4 * MIB, 4 * MIB),
        (20 * GIB, MIB, 16 * MIB),
        (MIB, 4 * MIB, 4 * MIB),
        (MIB, 16 * MIB, MIB),
        (MIB, 512 << 10, 512 << 10),
        (MIB, 4096, MIB),
    ],
)
def test_size_is_kept_while_it_fits(database_bytes: int, previous_bytes: int, expected_bytes: int) -> None:
    """The previous snapshot's chunks go on being used unless they are off by more than a factor of four."""
    assert chunk_pages(4096, database_bytes // 4096, previous_bytes // 4096) * 4096 == expected_bytes


@given(page_size=page_sizes, pages=st.integers(0, 2**32 - 2), previous=st.none() | st.integers(1, 1 << 40))
def test_size_is_legal(page_size: int, pages: int, previous: int | None) -> None:
    """Whatever came before, a chunk has at least a page and is never larger than a reader accepts."""
    found = chunk_pages(page_size, pages, previous)
    assert found >= 1
    assert found * page_size <= MAX_CHUNK_BYTES
    assert chunk_pages(page_size, pages, found) == found
