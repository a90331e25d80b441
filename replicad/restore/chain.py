"""The segments of a plan, applied from the newest to the oldest (see `settled`).

Deciding which frames count is sequential and cheap; fetching, unpacking and writing go on beside it, as many at
once as memory allows. Neighbours have to agree on the state between them: a segment that is missing, doubled
or foreign is found out here, a broken one by its own hashes.
"""

from __future__ import annotations

from bisect import bisect_right
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from replicad.errors import Damaged
from replicad.restore.faults import Unusable, suspected
from replicad.restore.opening import Opening
from replicad.restore.rows import rows
from replicad.restore.segments import OpenSegment, State
from replicad.segment import read_block_into

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping, Sequence

    from replicad.layout import SegmentKey
    from replicad.plan.restore import PlannedSegment
    from replicad.restore.older import Answers
    from replicad.restore.preparation import Preparation
    from replicad.restore.referring import Referring
    from replicad.restore.settled import Frames
    from replicad.restore.workshop import Workshop
    from replicad.segment import SegmentIndex

_RANGE_BYTES = 4 << 20  # stored bytes of neighbouring blocks fetched in one request


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What is needed of one block."""

    number: int
    frames: Frames  # to be written into the database
    answers: Answers  # older versions, for segments that refer to them


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Segments that follow one another, and the state that the oldest one continues from."""

    base: str  # what that state was found in, for messages
    state: State
    parts: Sequence[PlannedSegment]  # oldest first
    opened: Mapping[SegmentKey, OpenSegment]  # those that were read already


class Chain:
    """The segments of one attempt.

    Args:
        workshop: what the parts of the attempt share.
        prepared: the plan, its manifest, which the oldest segment has to fit, and its newest segment.
        referring: takes the segments that cannot be unpacked before older ones are.
        way: the segments that lead on from a state which is not the manifest's; None: all of the plan.
    """

    def __init__(self, workshop: Workshop, prepared: Preparation, referring: Referring, way: Way | None = None) -> None:
        self._workshop = workshop
        self._referring = referring
        self._plan = prepared.plan
        self._manifest = prepared.manifest
        self._newest = prepared.newest
        position = prepared.manifest.position
        self._way = way or Way(
            base=prepared.plan.manifest.name,
            state=State(position.checksum, position.pages),
            parts=prepared.plan.segments,
            opened={},
        )

    async def apply(self, group: asyncio.TaskGroup) -> None:
        """Settle every page that a segment holds; what is still being written when this returns is in the group.

        Raises:
            Unusable: an object of the plan cannot be used.
            ReplicadError: the store or the disk failed.
        """
        opening = Opening(
            self._workshop,
            database_id=self._plan.line.database_id,
            base=self._way.base,
            known=self._known,
        )
        newer: tuple[str, State] | None = None
        async with aclosing(opening.newest_first(group, reversed(self._way.parts))) as steps:
            async for step in steps:
                part, opened = step.part, step.opened
                self._check_page_size(part, opened)
                _check_link(newer, part.name, opened.state_after(part.through))
                newer = part.name, opened.state_after(part.after)
                if opened.index.references:
                    self._keep(part, opened, step.older)
                    self._workshop.ahead.give_back(step.held_bytes)
                elif opened.body is None:
                    await self._place_large(group, part, opened)
                    self._workshop.ahead.give_back(step.held_bytes)
                else:
                    await self._place_whole(group, part, opened, step.held_bytes)
        _check_link(newer, self._way.base, self._way.state)

    def _known(self, part: PlannedSegment) -> OpenSegment | None:
        if self._newest is not None and part.stored == self._newest.segment:
            return self._newest
        return self._way.opened.get(part.key)

    def _check_page_size(self, part: PlannedSegment, opened: OpenSegment) -> None:
        expected, found = self._manifest.page_size, opened.index.header.page_size
        if expected != found:
            error = Damaged(what=part.stored.stored.what, where="page_size", expected=expected, found=found)
            raise Unusable(error, part.name, self._plan.manifest.name)

    def _keep(self, part: PlannedSegment, opened: OpenSegment, older: str) -> None:
        """Have a segment that refers to older pages wait for them, when anything of it is needed."""
        frames = [
            found for _, row in self._workshop.settled.frames(opened.index, part.after, part.through) for found in row
        ]
        answers = self._workshop.wanted.answer(opened.index, part.after, part.through)
        if frames or answers:
            self._referring.keep(part, opened, frames, answers, older)
        else:
            self._workshop.progress.advanced(part.stored.stored.size_bytes)

    def _wanted(self, part: PlannedSegment, index: SegmentIndex) -> list[_Wanted]:
        """Return what is needed of each block, by falling number: by the database, and by newer segments."""
        rows = dict(self._workshop.settled.frames(index, part.after, part.through))
        answers: dict[int, Answers] = {}
        firsts = [block.first_frame for block in index.blocks]
        for frame, version in self._workshop.wanted.answer(index, part.after, part.through):
            answers.setdefault(bisect_right(firsts, frame) - 1, []).append((frame, version))
        return [
            _Wanted(number=number, frames=rows.get(number, []), answers=answers.get(number, []))
            for number in sorted(rows.keys() | answers.keys(), reverse=True)
        ]

    async def _place_whole(
        self, group: asyncio.TaskGroup, part: PlannedSegment, opened: OpenSegment, held_bytes: int
    ) -> None:
        """Start writing a segment that was fetched whole."""
        workshop, index = self._workshop, opened.index
        wanted = self._wanted(part, index)
        raw_bytes = max((index.blocks[one.number].frames for one in wanted), default=0) * index.header.page_size
        # a segment of a roll-up holds a copy of its part of it
        body_bytes = 0 if part.stored.stored.inside is None else part.stored.stored.size_bytes
        taken_bytes = await workshop.work.take(raw_bytes + body_bytes)

        async def write() -> None:
            with suspected(part.name):
                await workshop.fetch.threads.run(self._write, opened, wanted, 0, opened.body or b"")
            workshop.work.give_back(taken_bytes)
            workshop.ahead.give_back(held_bytes)
            workshop.progress.advanced(part.stored.stored.size_bytes)

        group.create_task(write())

    async def _place_large(self, group: asyncio.TaskGroup, part: PlannedSegment, opened: OpenSegment) -> None:
        """Start fetching and writing those blocks of a large segment that are needed."""
        blocks, wanted = opened.index.blocks, self._wanted(part, opened.index)  # by falling number

        def stored_bytes(one: _Wanted) -> int:
            return blocks[one.number].stored_bytes

        for row in rows(wanted, stored_bytes, most_bytes=_RANGE_BYTES, joins=_is_next):
            await self._place_row(group, opened, row)
        self._workshop.progress.advanced(part.stored.stored.size_bytes - sum(map(stored_bytes, wanted)))

    async def _place_row(self, group: asyncio.TaskGroup, opened: OpenSegment, row: list[_Wanted]) -> None:
        workshop, name, blocks = self._workshop, opened.segment.name, opened.index.blocks
        begin = opened.segment.stored.offset
        start = blocks[row[-1].number].offset
        stop = blocks[row[0].number].offset + blocks[row[0].number].stored_bytes
        raw_bytes = max(blocks[one.number].frames for one in row) * opened.index.header.page_size
        taken_bytes = await workshop.work.take(2 * (stop - start) + raw_bytes)

        async def fetch() -> None:
            with suspected(name):
                use = partial(self._write, opened, row, start)
                await workshop.fetch.proven(name, use, start=begin + start, stop=begin + stop)
            workshop.work.give_back(taken_bytes)
            workshop.progress.advanced(stop - start)

        group.create_task(fetch())

    def _write(self, opened: OpenSegment, wanted: Sequence[_Wanted], offset: int, body: bytes) -> None:
        """Write what is wanted of blocks; `body` is the segment from `offset` on. Runs in a thread."""
        view, size = memoryview(body), opened.index.header.page_size
        for one in wanted:
            block = opened.index.blocks[one.number]
            stored = view[block.offset - offset : block.offset - offset + block.stored_bytes]
            room = self._workshop.room(block.frames * size)
            raw = read_block_into(room, opened.index, one.number, stored, what=opened.segment.stored.what)
            if one.frames and not self._workshop.overlay.put(one.frames, raw, block.first_frame):
                self._workshop.image.write_frames(one.frames, raw, block.first_frame)
                self._workshop.proof.written(pgno for pgno, _ in one.frames)
            for frame, version in one.answers:
                at = (frame - block.first_frame) * size
                self._workshop.shelf.put(version, raw[at : at + size])


def _is_next(newer: _Wanted, older: _Wanted) -> bool:
    return older.number == newer.number - 1


def _check_link(newer: tuple[str, State] | None, older: str, found: State) -> None:
    """Refuse two neighbours that do not continue one another; which of them is wrong, another plan has to show."""
    if newer is None:
        return
    name, expected = newer
    if found != expected:
        error = Damaged(
            what=name,
            where=f"state that it continues from, where {older} ends",
            expected=f"checksum {expected.checksum:016x}, {expected.pages} pages",
            found=f"checksum {found.checksum:016x}, {found.pages} pages",
        )
        raise Unusable(error, name, older)
