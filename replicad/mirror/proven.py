"""Holding an object against the hashes that it carries, while it is on its way. Hashing is done in threads.

A segment has a hash for each of its parts, a chunk is named by its content. A manifest, a start, an end and a claim
have none: that they can be read, and are of the epoch that their key names, is all that can be said of them.
"""

from __future__ import annotations

import hashlib
from functools import partial
from typing import TYPE_CHECKING

import xxhash

from replicad import zstd
from replicad.errors import Damaged
from replicad.layout import parse_chunk, parse_claim, parse_end, parse_manifest, parse_segment, parse_start
from replicad.ownership.records import decode_claim, decode_end, decode_start
from replicad.segment import TRAILER_BYTES, decode, read_index, read_trailer
from replicad.snapshot import decode_manifest, decompress_chunk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from replicad.restore.fetch import Fetch
    from replicad.segment import Block, SegmentIndex

_PIECE_BYTES = 4 << 20  # of a large segment, fetched at once


def check(key: str, body: bytes) -> None:
    """Raise unless an object is what its key says.

    Raises:
        Damaged: it is not.
        NewerFormat: it was written by a later replicad.
    """
    if parse_segment(key) is not None:
        decode(body, what=key)
    elif (chunk := parse_chunk(key)) is not None:
        raw_bytes = zstd.content_bytes(body, what=key, where="zstd frame")
        decompress_chunk(body, raw_bytes=raw_bytes, name=chunk[1], what=key)
    elif (manifest := parse_manifest(key)) is not None:
        told = decode_manifest(body, what=key)
        _same(key, "TXID", manifest.txid, told.txid)
    else:
        _check_record(key, body)


def _check_record(key: str, body: bytes) -> None:
    if (epoch := parse_claim(key)) is not None:
        _same(key, "epoch", epoch, decode_claim(body, what=key).epoch)
    elif (epoch := parse_start(key)) is not None:
        _same(key, "epoch", epoch, decode_start(body, what=key).epoch)
    elif (epoch := parse_end(key)) is not None:
        _same(key, "epoch", epoch, decode_end(body, what=key).epoch)


def _same(key: str, where: str, expected: int, found: int) -> None:
    if expected != found:
        raise Damaged(what=key, where=where, expected=expected, found=found)


async def segment_pieces(fetch: Fetch, key: str, size_bytes: int) -> AsyncIterator[bytes]:
    """Iterate over the bytes of a large segment front to back, each piece proven before it is handed on.

    Raises:
        Damaged: a part of it is not what its hash says.
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
    for blocks in _pieces(index):
        yield await fetch.proven(key, partial(_check_blocks, key, blocks), start=blocks[0].offset, stop=_end(blocks))
    yield packed + tail[index_end - size_bytes :]


async def chunk_pieces(fetch: Fetch, key: str, size_bytes: int, name: str) -> AsyncIterator[bytes]:
    """Iterate over the bytes of a large chunk; the last piece is handed on only when the content has its name.

    Raises:
        Damaged: it has another.
        ObjectMissing: it is gone.
    """
    unpacking, digest = zstd.Unpacking(what=key, where="zstd frame"), hashlib.sha256()

    def step(piece: bytes) -> None:
        digest.update(unpacking.step(piece))

    for start in range(0, size_bytes, _PIECE_BYTES):
        stop = min(size_bytes, start + _PIECE_BYTES)
        piece = await fetch.read(key, start=start, stop=stop)
        await fetch.threads.run(step, piece)
        if stop == size_bytes and digest.hexdigest() != name:
            raise Damaged(what=key, where="SHA-256 of the content", expected=name, found=digest.hexdigest())
        yield piece


def _pieces(index: SegmentIndex) -> list[list[Block]]:
    pieces: list[list[Block]] = []
    for block in index.blocks:
        if pieces and _end(pieces[-1]) + block.stored_bytes - pieces[-1][0].offset <= _PIECE_BYTES:
            pieces[-1].append(block)
        else:
            pieces.append([block])
    return pieces


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
