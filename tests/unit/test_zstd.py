from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from replicad import zstd
from replicad.errors import Damaged


@given(raw=st.binary(max_size=5000), level=st.integers(1, 9))
def test_round_trip(raw: bytes, level: int) -> None:
    """What was packed is unpacked, and the frame names its size and has no checksum."""
    stored = zstd.compress(raw, level)
    parameters = zstandard.get_frame_parameters(stored)
    assert (parameters.content_size, parameters.has_checksum) == (len(raw), False)
    assert zstd.decompress(memoryview(stored), raw_bytes=len(raw), what="x", where="y") == raw


def test_ratio_is_the_largest() -> None:
    """No frame of the library's expands further than MAX_RATIO, so that no sound one is refused for it."""
    for level in (1, 3, 19):
        assert (64 << 20) / len(zstd.compress(bytes(64 << 20), level)) < zstd.MAX_RATIO


@pytest.mark.parametrize(
    ("stored", "where"),
    [
        (b"", "expected a zstd frame"),
        (b"\x28\xb5\x2f\xfd", "expected a zstd frame"),
        (b"not zstd at all", "expected a zstd frame"),
        (zstandard.ZstdCompressor(write_content_size=False).compress(bytes(100)), "content size"),
        (zstd.compress(bytes(99), 1), "content size"),
        (zstd.compress(bytes(101), 1), "content size"),
        (zstd.compress(bytes(100), 1)[:-1], "expected a zstd frame"),
        (zstd.compress(bytes(100), 1) + b"\0", "expected a zstd frame"),
        (zstd.compress(bytes(50), 1) * 2, "content size"),
        (b"\x50\x2a\x4d\x18\x04\0\0\0abcd", "content size"),
    ],
    ids=lambda value: value.hex()[:20] if isinstance(value, bytes) else value,
)
def test_damaged(stored: bytes, where: str) -> None:
    """Anything but one whole frame of the expected size is damaged."""
    with pytest.raises(Damaged, match=where):
        zstd.decompress(stored, raw_bytes=100, what="x", where="y")
    with pytest.raises(Damaged):
        zstd.decompress_into(memoryview(bytearray(100)), stored, what="x", where="y")


@given(raw=st.binary(min_size=1, max_size=5000), repeats=st.integers(1, 100), level=st.integers(1, 9))
def test_a_buffer_is_filled(raw: bytes, repeats: int, level: int) -> None:
    """What was packed fills a buffer of its size, whatever blocks the frame is made of; a byte behind it is damage."""
    raw *= repeats
    for checksum in (False, True):
        stored = zstandard.ZstdCompressor(level=level, write_checksum=checksum).compress(raw)
        buffer = bytearray(len(raw))
        zstd.decompress_into(memoryview(buffer), stored, what="x", where="y")
        assert buffer == raw
        with pytest.raises(Damaged):
            zstd.decompress_into(memoryview(buffer), stored + b"\0", what="x", where="y")


@given(stored=st.binary(max_size=300), raw_bytes=st.integers(0, 1 << 62))
def test_random_bytes(stored: bytes, raw_bytes: int) -> None:
    """Random bytes are damaged, behind the magic of a frame as well."""
    for body in (stored, b"\x28\xb5\x2f\xfd" + stored):
        try:
            assert len(zstd.decompress(body, raw_bytes=raw_bytes, what="x", where="y")) == raw_bytes
        except Damaged:
            continue


def test_claimed_size_alone_costs_nothing() -> None:
    """A tiny frame that claims a size no frame of its length can have is refused before it is allocated.

    Seen to fail without the bound by MAX_RATIO: only the unpacking, into 1 GiB, found the damage.
    """
    frame = b"\x28\xb5\x2f\xfd\xe0" + (1 << 30).to_bytes(8, "little") + b"\x09\0\0x"
    assert zstandard.frame_content_size(frame) == 1 << 30
    tracemalloc.start()
    try:
        with pytest.raises(Damaged, match="content size: expected 1073741824 bytes, found 1073741824 bytes in 17"):
            zstd.decompress(frame, raw_bytes=1 << 30, what="x", where="y")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_threads_do_not_share() -> None:
    """Many threads pack and unpack at once and get their own bytes back."""

    def round_trip(number: int) -> bool:
        raw = number.to_bytes(4, "big") * 50_000
        stored = zstd.compress(raw, 1 + number % 3)
        return zstd.decompress(stored, raw_bytes=len(raw), what="x", where="y") == raw

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(round_trip, range(200)))
