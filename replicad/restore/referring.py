"""Segments that refer to older pages: kept aside while a chain is gone through, then unpacked from the oldest on."""

from __future__ import annotations

from array import array
from contextlib import aclosing
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from replicad.errors import Damaged
from replicad.position import NO_WAL
from replicad.restore.faults import Unusable, suspected
from replicad.restore.older import Version
from replicad.restore.pieces import fetch_piece, neighbours
from replicad.restore.pieces import opened as opened_members
from replicad.restore.segments import index_bytes, open_segment
from replicad.restore.together import gather_bounded, task_group
from replicad.segment import Block, SegmentHeader, SegmentIndex, read_block

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from replicad.layout import SegmentKey
    from replicad.plan.restore import PlannedSegment
    from replicad.restore.older import Answers
    from replicad.restore.pieces import Piece
    from replicad.restore.segments import OpenSegment
    from replicad.restore.settled import Frames
    from replicad.restore.workshop import Workshop

_KEPT_SHARE = 8  # the part of the memory that blocks may take until their turn comes
_AT_ONCE = 64  # segments unpacked in one go
_AT_ONCE_OF_ROLL_UPS = 8192  # likewise, of those that are fetched again with one request for many
_FETCHES = 8
_NO_PAGES = array("I")


class Kept(NamedTuple):
    """A segment whose one block waits for the pages that it refers to. There may be as many as seconds in a day."""

    part: PlannedSegment
    block: bytes | None  # as stored; None: there was no room, it is fetched again
    block_hash: int
    block_frames: int
    reference_hash: int
    versions: array[int]  # of the pages that it refers to
    frames: array[int]  # to be written into the database: page number, frame, page number, frame
    answers: array[int]  # to be put on the shelf: frame, version, frame, version

    def read(self, references: bytes, page_size: int) -> bytes:
        """Return its page images, one after another; `references` are what its versions are.

        Raises:
            Damaged: they are others, or the block is.
        """
        block, key = self.block or b"", self.part.stored.stored.key
        header = SegmentHeader(
            database_id="",
            epoch=key.epoch,
            page_size=page_size,
            first_txid=key.first,
            checksum_before=0,
            pages_before=0,
        )
        found = Block(offset=0, stored_bytes=len(block), first_frame=0, frames=self.block_frames, hash=self.block_hash)
        index = SegmentIndex(
            header=header,
            transactions=(),
            pgnos=_NO_PAGES,
            blocks=(found,),
            wal_end=NO_WAL,
            references=self.versions,
            reference_hash=self.reference_hash,
        )
        return read_block(index, 0, block, what=self.part.stored.stored.what, references=references)


class Referring:
    """The referring segments of one attempt.

    Args:
        workshop: what the parts of the attempt share.
        database_id: of the line.
        memory_bytes: what the whole attempt may take.
    """

    def __init__(self, workshop: Workshop, *, database_id: str, memory_bytes: int) -> None:
        self._workshop = workshop
        self._database_id = database_id
        self._kept: list[Kept] = []  # newest first
        self._room_bytes = memory_bytes // _KEPT_SHARE

    def keep(self, part: PlannedSegment, opened: OpenSegment, frames: Frames, answers: Answers, older: str) -> None:
        """Keep a segment aside, and ask for the pages that it refers to.

        Args:
            part: as planned.
            opened: its block is fetched again when it has no body.
            frames: what the database needs of it.
            answers: what newer segments need of it.
            older: the object that the state in front of it comes from.

        Raises:
            Unusable: the plan does not have the state that it refers to.
        """
        index, name = opened.index, part.name
        self._workshop.proof.later(pgno for pgno, _ in frames)
        if part.after != index.header.first_txid - 1:
            expected, found = f"TXID {index.header.first_txid - 1}", f"TXID {part.after}, from {older}"
            what = part.stored.stored.what
            error = Damaged(what=what, where="state that it refers to", expected=expected, found=found)
            raise Unusable(error, older, name)
        block = index.blocks[0]
        stored: bytes | None = None
        if opened.body is not None and block.stored_bytes <= self._room_bytes:
            self._room_bytes -= block.stored_bytes
            stored = opened.body[block.offset : block.offset + block.stored_bytes]
        self._kept.append(
            Kept(
                part=part,
                block=stored,
                block_hash=block.hash,
                block_frames=block.frames,
                reference_hash=index.reference_hash,
                versions=self._workshop.wanted.ask(index),
                frames=_flat(frames),
                answers=_flat(answers),
            )
        )

    async def unpack(self, base: str) -> None:
        """Unpack and write them, from the oldest to the newest; `base` is the object that the oldest one rests on.

        Raises:
            Unusable: one of them cannot be used, or its references are not what they should be.
            ReplicadError: the store or the disk failed.
        """
        batches = self._batches()
        batch = next(batches, None)
        async with task_group() as group:
            fetching = None if batch is None else group.create_task(self._complete(batch))
            while fetching is not None:
                complete = await fetching
                batch = next(batches, None)
                fetching = None if batch is None else group.create_task(self._complete(batch))
                await self._workshop.fetch.threads.run(self._write, complete, base)
                for kept in complete:
                    self._workshop.progress.advanced(kept.part.stored.stored.size_bytes)

    def _batches(self) -> Iterator[list[Kept]]:
        """Take them from the oldest on, as many at once as may be fetched again at once."""
        most_bytes = (
            self._workshop.ahead.limit_bytes // 4
        )  # one is unpacked, another fetched; each takes twice its size
        batch: list[Kept] = []
        batch_bytes = 0
        while self._kept:
            kept = self._kept.pop()
            again_bytes = 0 if kept.block is not None else index_bytes(kept.part.stored)
            # of a roll-up, one request brings many
            most = _AT_ONCE if again_bytes == 0 or kept.part.stored.stored.inside is None else _AT_ONCE_OF_ROLL_UPS
            if batch and (len(batch) >= most or batch_bytes + again_bytes > most_bytes):
                yield batch
                batch, batch_bytes = [], 0
            batch.append(kept)
            batch_bytes += again_bytes
        if batch:
            yield batch

    async def _complete(self, batch: Sequence[Kept]) -> Sequence[Kept]:
        again = neighbours(kept.part for kept in reversed(batch) if kept.block is None)
        found = await gather_bounded((partial(self._fetched, piece) for piece in again), _FETCHES)
        blocks = {key: block for piece in found for key, block in piece.items()}
        return [kept if kept.block is not None else kept._replace(block=blocks[kept.part.key]) for kept in batch]

    async def _fetched(self, piece: Piece) -> dict[SegmentKey, bytes]:
        """Return the blocks of segments that are fetched once more."""
        fetch = self._workshop.fetch
        with suspected(piece.part.name):
            if not piece.members:
                opened = await open_segment(fetch, piece.part.stored, database_id=self._database_id)
                return {piece.part.key: _block_of(opened)}
            members = opened_members(fetch, await fetch_piece(fetch, piece), database_id=self._database_id)
            async with aclosing(members) as steps:
                return {part.key: _block_of(member) async for part, member in steps}

    def _write(self, batch: Sequence[Kept], base: str) -> None:
        """Unpack a batch, oldest first. Runs in a thread."""
        image, shelf, size = self._workshop.image, self._workshop.shelf, self._workshop.image.page_size
        for kept in batch:
            name = kept.part.name
            try:
                raw = memoryview(kept.read(shelf.take(kept.versions), size))
            except Damaged as error:
                raise Unusable(error, name, base, unproven=True) from error
            for frame, version in _pairs(kept.answers):
                shelf.put(Version(version), raw[frame * size : (frame + 1) * size])
            if kept.frames:
                image.write_frames(_pairs(kept.frames), raw, 0)
                self._workshop.proof.written(kept.frames[::2])


def _block_of(opened: OpenSegment) -> bytes:
    block = opened.index.blocks[0]
    return (opened.body or b"")[block.offset : block.offset + block.stored_bytes]


def _flat(pairs: Sequence[tuple[int, int]]) -> array[int]:
    return array("Q", chain.from_iterable(pairs)) if pairs else _NO_PAGES


def _pairs(flat: array[int]) -> list[tuple[int, int]]:
    return list(zip(flat[::2], flat[1::2], strict=True))
