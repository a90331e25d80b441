"""Zstandard frames of known size: what comes out is bounded before anything is allocated.

Every frame names its content size. A frame that names another size than the caller expects is
refused unread, so a hostile frame cannot make more memory than the size that was already accepted.
"""

from __future__ import annotations

import threading

import zstandard

from replicad.errors import Damaged

MAX_RATIO = 32_768
"""No frame expands further: a zstd block of at least 4 stored bytes gives at most 128 KiB (RFC 8878)."""

_BLOCK_HEAD_BYTES = 3
_REPEATS = 1  # the type of a block that is one byte, as often as its size says
_CHECKSUM_BYTES = 4


_AFTER = zstandard.ZstdCompressionParameters(
    window_log=20,
    hash_log=16,
    chain_log=16,
    search_log=5,
    min_match=6,
    target_length=32,
    strategy=zstandard.STRATEGY_LAZY2,
    write_content_size=True,
    write_checksum=False,
    write_dict_id=False,
)


class _PerThread(threading.local):
    """Contexts are costly to make and not safe to share: each thread keeps its own."""

    def __init__(self) -> None:
        self.compressors: dict[int, zstandard.ZstdCompressor] = {}
        self.decompressor = zstandard.ZstdDecompressor()


_contexts = _PerThread()


def compress(raw: bytes | bytearray | memoryview, level: int) -> bytes:
    """Return one frame that names its content size and has no checksum (callers keep better ones)."""
    compressor = _contexts.compressors.get(level)
    if compressor is None:
        compressor = zstandard.ZstdCompressor(
            level=level, write_content_size=True, write_checksum=False, write_dict_id=False
        )
        _contexts.compressors[level] = compressor
    return compressor.compress(raw)


def compress_after(raw: bytes | bytearray | memoryview, before: bytes) -> bytes:
    """Return one frame as `compress` does that needs `before` to be unpacked: what occurs there costs little here.

    For a few hundred KiB of both: the levels of zstd either take a fifth more bytes there, or ten times as long.
    """
    known = zstandard.ZstdCompressionDict(before, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    return zstandard.ZstdCompressor(compression_params=_AFTER, dict_data=known).compress(raw)


def content_bytes(stored: bytes | memoryview, *, what: str, where: str) -> int:
    """Return the content size that the frame in `stored` names; nothing of it is unpacked.

    Raises:
        Damaged: it is no frame, or names none; `what` and `where` name it in the message.
    """
    try:
        size = zstandard.frame_content_size(stored)
    except zstandard.ZstdError as error:
        raise Damaged(what=what, where=where, expected="a zstd frame", found=str(error)) from error
    if size < 0:
        raise Damaged(what=what, where=where, expected="a frame that names its content size", found="none")
    return size


def decompress(stored: bytes | memoryview, *, raw_bytes: int, what: str, where: str, before: bytes = b"") -> bytes:
    """Return the content of the one frame in `stored`, which must be `raw_bytes` long.

    Callers bound `raw_bytes` first: it is allocated at once. `before` is what `compress_after` was given.

    Raises:
        Damaged: not exactly one whole frame of that size; `what` and `where` name it in the message.
    """
    try:
        size = zstandard.frame_content_size(stored)
        if size != raw_bytes or raw_bytes > len(stored) * MAX_RATIO:
            raise Damaged(
                what=what,
                where=f"{where}, content size",
                expected=f"{raw_bytes} bytes",
                found=f"{size} bytes in {len(stored)}",
            )
        return _decompressor(before).decompress(stored, max_output_size=raw_bytes, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Damaged(what=what, where=where, expected="a zstd frame", found=str(error)) from error


class Unpacking:
    """One frame, unpacked piece by piece as it arrives."""

    def __init__(self, *, what: str, where: str) -> None:
        self._what = what
        self._where = where
        self._decompressor = zstandard.ZstdDecompressor().decompressobj()

    def step(self, stored: bytes) -> bytes:
        """Return the content that the next stored bytes complete.

        Raises:
            Damaged: they do not go on with the frame; `what` and `where` name it in the message.
        """
        try:
            return self._decompressor.decompress(stored)
        except zstandard.ZstdError as error:
            raise Damaged(what=self._what, where=self._where, expected="a zstd frame", found=str(error)) from error


def _decompressor(before: bytes) -> zstandard.ZstdDecompressor:
    if not before:
        return _contexts.decompressor
    known = zstandard.ZstdCompressionDict(before, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    return zstandard.ZstdDecompressor(dict_data=known)


def decompress_into(buffer: memoryview, stored: bytes | memoryview, *, what: str, where: str) -> None:
    """Fill the buffer, all of it, with the content of the one frame in `stored`.

    For many frames of one size after another: memory that is given back and asked for again with each of them costs
    as much as half the unpacking.

    Raises:
        Damaged: not exactly one whole frame of that size; `what` and `where` name it in the message.
    """
    try:
        size = zstandard.frame_content_size(stored)
        if size != len(buffer):
            found = f"{size} bytes in {len(stored)}"
            raise Damaged(what=what, where=f"{where}, content size", expected=f"{len(buffer)} bytes", found=found)
        with _contexts.decompressor.stream_reader(stored) as reader:
            filled = reader.readinto(buffer)
        if filled != len(buffer) or _frame_bytes(stored) != len(stored):
            expected = f"{len(buffer)} bytes from one frame"
            raise Damaged(what=what, where=where, expected=expected, found=f"{filled} bytes, or more behind the frame")
    except zstandard.ZstdError as error:
        raise Damaged(what=what, where=where, expected="a zstd frame", found=str(error)) from error


def _frame_bytes(stored: bytes | memoryview) -> int:
    """Return how long the frame at the beginning is, by the heads of its blocks (RFC 8878, 3.1.1.2)."""
    at, last = zstandard.frame_header_size(stored), False
    while not last and at < len(stored):
        head = int.from_bytes(stored[at : at + _BLOCK_HEAD_BYTES], "little")
        last, repeats, size_bytes = bool(head & 1), head >> 1 & 3 == _REPEATS, head >> 3
        at += _BLOCK_HEAD_BYTES + (1 if repeats else size_bytes)
    return at + (_CHECKSUM_BYTES if zstandard.get_frame_parameters(stored).has_checksum else 0)
