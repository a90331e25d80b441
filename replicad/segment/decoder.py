"""Segments read: a whole object, or a large one part by part from its end.

By parts: `read_trailer` from the last bytes, `read_index` from the ranges that it names, then
`read_block` for the blocks that are wanted. Hashes come first, but nothing is believed because of
them: every length is checked before it is used, and every size before it is allocated.
"""

from __future__ import annotations

import xxhash

from replicad import zstd
from replicad.errors import Damaged
from replicad.segment.form import HEAD, OBJECT_HASH_OFFSET, TRAILER_BYTES
from replicad.segment.header import read_head
from replicad.segment.index import SegmentIndex, parse_index
from replicad.segment.trailer import Trailer, read_trailer


def read_index(head: bytes, index: bytes, trailer: Trailer, *, what: str) -> SegmentIndex:
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
    (_, _, length) = HEAD.unpack_from(head)
    if HEAD.size + length != trailer.data_offset:
        found = HEAD.size + length
        raise Damaged(what=what, where="end of the head", expected=trailer.data_offset, found=found)
    _check_hash(head[: trailer.data_offset], trailer.head_hash, where="head", what=what)
    if (header.first_txid, header.checksum_before) != (trailer.first_txid, trailer.checksum_before):
        expected = f"TXID {trailer.first_txid} from checksum {trailer.checksum_before:016x}"
        found = f"TXID {header.first_txid} from checksum {header.checksum_before:016x}"
        raise Damaged(what=what, where="header", expected=expected, found=found)
    if len(index) != trailer.index_bytes:
        raise Damaged(what=what, where="index", expected=f"{trailer.index_bytes} bytes", found=len(index))
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
    hashed = memoryview(body)[: len(body) - TRAILER_BYTES + OBJECT_HASH_OFFSET]
    found = xxhash.xxh3_128_digest(hashed)
    if found != trailer.object_hash:
        expected = trailer.object_hash.hex()
        raise Damaged(what=what, where="hash of the object", expected=expected, found=found.hex())
    index_end = trailer.index_offset + trailer.index_bytes
    return read_index(body[: trailer.data_offset], body[trailer.index_offset : index_end], trailer, what=what)


def read_block(index: SegmentIndex, number: int, stored: bytes | memoryview, *, what: str) -> bytes:
    """Return the page images of block `number`, one after another: frames * page_size bytes.

    Args:
        index: the segment's.
        number: which of `index.blocks`.
        stored: the block's bytes in the object, `stored_bytes` from `offset`.
        what: names the object in messages.

    Raises:
        Damaged: the bytes are not that block.
    """
    block = index.blocks[number]
    where = f"block {number}"
    if len(stored) != block.stored_bytes:
        raise Damaged(what=what, where=where, expected=f"{block.stored_bytes} bytes", found=len(stored))
    _check_hash(stored, block.hash, where=where, what=what)
    return zstd.decompress(stored, raw_bytes=block.frames * index.header.page_size, what=what, where=where)


def _check_hash(stored: bytes | memoryview, expected: int, *, where: str, what: str) -> None:
    found = xxhash.xxh3_64_intdigest(stored)
    if found != expected:
        raise Damaged(what=what, where=f"hash of the {where}", expected=f"{expected:016x}", found=f"{found:016x}")
