"""Segments read: a whole object, or a large one part by part from its end.

By parts: `read_trailer` from the last bytes, `read_index` from the ranges that it names, then
`read_block` for the blocks that are wanted. Hashes come first, but nothing is believed because of
them: every length is checked before it is used, and every size before it is allocated.
"""

from __future__ import annotations

import xxhash

from replicad import zstd
from replicad.errors import Damaged, NewerFormat
from replicad.segment.compact import CompactTrailer, read_compact_index, read_compact_trailer
from replicad.segment.form import (
    FIRST_VERSION,
    HEAD,
    OBJECT_HASH_OFFSET,
    SEAL,
    TRAILER,
    TRAILER_1,
    TRAILER_BYTES,
    TRAILER_MAGIC,
    VERSION,
)
from replicad.segment.header import read_head
from replicad.segment.index import SegmentIndex, parse_index
from replicad.segment.trailer import Trailer
from replicad.segment.trailer import read_trailer as read_first_trailer

_LENGTHS = {1: TRAILER_1.size, 2: TRAILER.size}


def read_trailer(tail: bytes, *, object_bytes: int, what: str) -> Trailer | CompactTrailer:
    """Return the trailer at the end of `tail`, the last TRAILER_BYTES (or more) of an object of `object_bytes`.

    Raises:
        Damaged: the bytes are not the end of a segment of that size.
        NewerFormat: they are of a later version.
    """
    version = _version_of(tail, object_bytes, what)
    length = _LENGTHS[version]
    if object_bytes < HEAD.size + length or len(tail) < length:
        found = f"{object_bytes}, {len(tail)} of them at hand"
        raise Damaged(what=what, where="size", expected=f"at least {HEAD.size + length} bytes", found=found)
    if version == FIRST_VERSION:
        return read_first_trailer(tail[-length:], object_bytes=object_bytes, what=what)
    return read_compact_trailer(tail[-length:], object_bytes=object_bytes, what=what)


def _version_of(tail: bytes, object_bytes: int, what: str) -> int:
    """The last fields come first: they have the same form in every version."""
    if len(tail) < SEAL.size:
        found = f"{object_bytes}, {len(tail)} of them at hand"
        raise Damaged(what=what, where="size", expected=f"at least {HEAD.size + TRAILER.size} bytes", found=found)
    version, length, magic = SEAL.unpack(tail[-SEAL.size :])
    if magic != TRAILER_MAGIC:
        raise Damaged(what=what, where="magic of the trailer", expected=TRAILER_MAGIC, found=magic)
    if version > VERSION:
        raise NewerFormat(what=what, found=version, expected=VERSION)
    if _LENGTHS.get(version) != length:
        expected = " or ".join(f"version {known} of {size} bytes" for known, size in _LENGTHS.items())
        raise Damaged(what=what, where="trailer", expected=expected, found=f"version {version} of {length}")
    return int(version)


def read_index(head: bytes, index: bytes, trailer: Trailer | CompactTrailer, *, what: str) -> SegmentIndex:
    """Return the index of a segment from ranges of the object.

    Args:
        head: the bytes from the front up to `trailer.data_offset`; more is no harm.
        index: the `trailer.index_bytes` bytes from `trailer.index_offset`.
        trailer: as `read_trailer` gave it.
        what: names the object in messages.

    Raises:
        Damaged: the bytes are not the head and the index of one segment.
        NewerFormat: the head is of a later version.
    """
    header = read_head(head[: trailer.data_offset], what=what)
    (_, version, length) = HEAD.unpack_from(head)
    if HEAD.size + length != trailer.data_offset:
        found = HEAD.size + length
        raise Damaged(what=what, where="end of the head", expected=trailer.data_offset, found=found)
    if version != (FIRST_VERSION if isinstance(trailer, Trailer) else VERSION):
        raise Damaged(what=what, where="version", expected="that of the trailer", found=version)
    if len(index) != trailer.index_bytes:
        raise Damaged(what=what, where="index", expected=f"{trailer.index_bytes} bytes", found=len(index))
    if isinstance(trailer, CompactTrailer):
        return read_compact_index(head[: trailer.data_offset], index, header, trailer, what=what)
    _check_hash(head[: trailer.data_offset], trailer.head_hash, where="head", what=what)
    if (header.first_txid, header.checksum_before) != (trailer.first_txid, trailer.checksum_before):
        expected = f"TXID {trailer.first_txid} from checksum {trailer.checksum_before:016x}"
        found = f"TXID {header.first_txid} from checksum {header.checksum_before:016x}"
        raise Damaged(what=what, where="header", expected=expected, found=found)
    _check_hash(index, trailer.index_hash, where="index", what=what)
    raw = zstd.decompress(index, raw_bytes=trailer.raw_index_bytes, what=what, where="index")
    return parse_index(raw, header, trailer, what=what)


def decode(body: bytes, *, what: str) -> SegmentIndex:
    """Return the index of the whole object `body`, whose every byte is then proven; `what` names it in messages.

    Blocks are not unpacked: give slices of `body` to `read_block`.

    Raises:
        Damaged: the bytes are not a segment.
        NewerFormat: they are one of a later version.
    """
    trailer = read_trailer(body[-TRAILER_BYTES:], object_bytes=len(body), what=what)
    if isinstance(trailer, Trailer):
        _check_object(body, trailer, what)
    index_end = trailer.index_offset + trailer.index_bytes
    index = read_index(body[: trailer.data_offset], body[trailer.index_offset : index_end], trailer, what=what)
    if isinstance(trailer, CompactTrailer):  # which has no hash of the object: its parts have one each
        view = memoryview(body)
        for number, block in enumerate(index.blocks):
            stored = view[block.offset : block.offset + block.stored_bytes]
            _check_hash(stored, block.hash, where=f"block {number}", what=what)
    return index


def _check_object(body: bytes, trailer: Trailer, what: str) -> None:
    found = xxhash.xxh3_128_digest(memoryview(body)[: len(body) - TRAILER_1.size + OBJECT_HASH_OFFSET])
    if found != trailer.object_hash:
        expected = trailer.object_hash.hex()
        raise Damaged(what=what, where="hash of the object", expected=expected, found=found.hex())


def read_block(
    index: SegmentIndex, number: int, stored: bytes | memoryview, *, what: str, references: bytes = b""
) -> bytes:
    """Return the page images of block `number`, one after another: frames * page_size bytes.

    Args:
        index: the segment's.
        number: which of `index.blocks`.
        stored: the block's bytes in the object, `stored_bytes` from `offset`.
        what: names the object in messages.
        references: the pages `index.references` as of the transaction before the segment's first, one after another.

    Raises:
        Damaged: the bytes are not that block, or the references are not those pages.
    """
    where = _check_block(index, number, stored, what)
    if index.references:
        _check_references(index, references, what)
    raw_bytes = index.blocks[number].frames * index.header.page_size
    return zstd.decompress(
        stored, raw_bytes=raw_bytes, what=what, where=where, before=references if index.references else b""
    )


def read_block_into(
    room: memoryview, index: SegmentIndex, number: int, stored: bytes | memoryview, *, what: str
) -> memoryview:
    """Return what `read_block` does of a segment without references, at the beginning of `room`, which is large enough.

    Raises:
        Damaged: the bytes are not that block.
    """
    if index.references:
        raise ValueError(f"{what} refers to pages")
    where = _check_block(index, number, stored, what)
    raw = room[: index.blocks[number].frames * index.header.page_size]
    zstd.decompress_into(raw, stored, what=what, where=where)
    return raw


def _check_block(index: SegmentIndex, number: int, stored: bytes | memoryview, what: str) -> str:
    """Check that these are a block's bytes; return what messages call it."""
    block, where = index.blocks[number], f"block {number}"
    if len(stored) != block.stored_bytes:
        raise Damaged(what=what, where=where, expected=f"{block.stored_bytes} bytes", found=len(stored))
    _check_hash(stored, block.hash, where=where, what=what)
    return where


def _check_references(index: SegmentIndex, references: bytes, what: str) -> None:
    expected, found = index.reference_hash, xxhash.xxh3_64_intdigest(references)
    if len(references) != len(index.references) * index.header.page_size or found != expected:
        raise Damaged(
            what=what,
            where=f"hash of the {len(index.references)} pages that it refers to",
            expected=f"{expected:016x}",
            found=f"{found:016x} in {len(references)} bytes",
        )


def _check_hash(stored: bytes | memoryview, expected: int, *, where: str, what: str) -> None:
    found = xxhash.xxh3_64_intdigest(stored)
    if found != expected:
        raise Damaged(what=what, where=f"hash of the {where}", expected=f"{expected:016x}", found=f"{found:016x}")
