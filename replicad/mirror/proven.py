"""Holding an object against the hashes that it carries, while it is on its way. Hashing is done in threads.

A segment has a hash for each of its parts, a roll-up is made of segments, a chunk is named by its content. A manifest,
a mark, a start, an end and a claim have none: that they can be read, and are what their key names, is all that can be
said of them.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import xxhash

from replicad import zstd
from replicad.errors import Damaged, NewerFormat
from replicad.layout import parse_segment
from replicad.plan.line import LineSegment
from replicad.plan.listing import SegmentObject
from replicad.restore.rollups import OpenRollUp, open_rollup
from replicad.restore.rows import rows
from replicad.restore.segments import decode_member
from replicad.restore.verify_object import check_body
from replicad.segment import (
    ROLLUP_HEAD_BYTES,
    ROLLUP_TRAILER,
    TRAILER_BYTES,
    check_rollup_head,
    decode_rollup,
    read_directory,
    read_index,
    read_rollup_trailer,
    read_trailer,
)
from replicad.snapshot import PLAIN_NAMES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from replicad.layout import SegmentKey
    from replicad.restore.fetch import Fetch
    from replicad.segment import Block, SegmentIndex
    from replicad.snapshot import ChunkNames

_PIECE_BYTES = 4 << 20  # of a large segment, fetched at once


def check(key: str, body: bytes, *, names: ChunkNames = PLAIN_NAMES) -> None:
    """Raise unless an object is what its key says; `names` is how the replica names its chunks.

    Raises:
        Damaged: it is not.
        NewerFormat: it was written by a later replicad.
    """
    parsed = parse_segment(key)
    if parsed is None:
        check_body(key, body, database_id=None, names=names)
    elif parsed.level:
        rollup = OpenRollUp(segment=_stored(parsed, len(body)), directory=decode_rollup(body, what=key), body=body)
        rollup.check_identity()
        _check_members([rollup.member(number) for number in range(len(rollup.directory))], 0, body)
    else:
        decode_member(_stored(parsed, len(body)), body, 0, None)


def _stored(key: SegmentKey, size_bytes: int) -> LineSegment:
    return LineSegment(stored=SegmentObject(key=key, size_bytes=size_bytes), until=key.last)


async def segment_pieces(fetch: Fetch, key: str, size_bytes: int) -> AsyncIterator[bytes]:
    """Iterate over the bytes of a large segment front to back, each piece proven before it is handed on.

    Raises:
        Damaged: a part of it is not what its hash says.
        NewerFormat: it was written by a later replicad; nothing was handed on.
        ObjectMissing: it is gone.
    """
    tail = await fetch.read(key, start=max(0, size_bytes - TRAILER_BYTES))
    trailer = read_trailer(tail, object_bytes=size_bytes, what=key)
    head = (await fetch.read(key, stop=trailer.data_offset))[: trailer.data_offset]
    index_end = trailer.index_offset + trailer.index_bytes

    def understand(packed: bytes) -> tuple[SegmentIndex, bytes]:
        return read_index(head, packed, trailer, what=key), packed

    index, packed = await fetch.proven(key, understand, start=trailer.index_offset, stop=index_end)
    yield head
    for blocks in rows(index.blocks, lambda block: block.stored_bytes, most_bytes=_PIECE_BYTES):
        yield await fetch.proven(key, partial(_check_blocks, key, blocks), start=blocks[0].offset, stop=_end(blocks))
    yield packed + tail[index_end - size_bytes :]


async def rollup_pieces(fetch: Fetch, key: SegmentKey, size_bytes: int) -> AsyncIterator[bytes]:
    """Iterate over the bytes of a large roll-up front to back, each segment in it proven before it is handed on.

    Raises:
        Damaged: it is no roll-up, or a segment in it is not what its hashes and the directory say.
        NewerFormat: the roll-up was written by a later replicad; nothing was handed on.
        ObjectMissing: it is gone.
    """
    name = str(key)
    rollup = await open_rollup(fetch, _stored(key, size_bytes))
    yield await fetch.proven(name, partial(_check_head, name), stop=ROLLUP_HEAD_BYTES)
    members = (rollup.member(number) for number in range(len(rollup.directory)))
    end = ROLLUP_HEAD_BYTES
    for row in rows(members, lambda member: member.stored.size_bytes, most_bytes=_PIECE_BYTES):
        begin, end = row[0].stored.offset, row[-1].stored.offset + row[-1].stored.size_bytes
        yield await fetch.proven(name, partial(_check_members, row, begin), start=begin, stop=end)
    yield await fetch.proven(name, partial(_check_directory, name, size_bytes), start=end, stop=size_bytes)


async def chunk_pieces(
    fetch: Fetch, key: str, size_bytes: int, name: str, *, names: ChunkNames = PLAIN_NAMES
) -> AsyncIterator[bytes]:
    """Iterate over the bytes of a large chunk; the last piece is handed on only when the content has its name.

    Raises:
        Damaged: it has another.
        ObjectMissing: it is gone.
    """
    unpacking, naming = zstd.Unpacking(what=key, where="zstd frame"), names.naming(name)

    def step(piece: bytes) -> None:
        naming.update(unpacking.step(piece))

    for start in range(0, size_bytes, _PIECE_BYTES):
        stop = min(size_bytes, start + _PIECE_BYTES)
        piece = await fetch.read(key, start=start, stop=stop)
        await fetch.threads.run(step, piece)
        if stop == size_bytes and naming.found != name:
            raise Damaged(what=key, where=names.method, expected=name, found=naming.found)
        yield piece


def _end(blocks: list[Block]) -> int:
    return blocks[-1].offset + blocks[-1].stored_bytes


def _check_blocks(key: str, blocks: list[Block], stored: bytes) -> bytes:
    view, begin = memoryview(stored), blocks[0].offset
    for block in blocks:
        found = xxhash.xxh3_64_intdigest(view[block.offset - begin : block.offset - begin + block.stored_bytes])
        if found != block.hash:
            where = f"hash of the block at {block.offset}"
            raise Damaged(what=key, where=where, expected=f"{block.hash:016x}", found=f"{found:016x}")
    return stored


def _check_head(name: str, head: bytes) -> bytes:
    check_rollup_head(head, what=name)
    return head


def _check_members(members: Sequence[LineSegment], offset: int, stored: bytes) -> bytes:
    """Check segments of a roll-up; `stored` is the object from `offset` on."""
    for member in members:
        try:
            decode_member(member, stored, offset, None)
        except NewerFormat:  # as of a segment by itself: it will be read by whoever wrote it
            continue
    return stored


def _check_directory(name: str, size_bytes: int, tail: bytes) -> bytes:
    """Check what stands behind the members: fetched once more, it has to be a directory of just those."""
    trailer = read_rollup_trailer(tail, object_bytes=size_bytes, what=name)
    read_directory(tail[: -ROLLUP_TRAILER.size], trailer, what=name)
    return tail
