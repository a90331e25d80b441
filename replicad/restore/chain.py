"""The segments of a plan, applied from the newest to the oldest (see `settled`).

Deciding which frames count is sequential and cheap; fetching, unpacking and writing go on beside it, as many at
once as memory allows. Neighbours have to agree on the state between them: a segment that is missing, doubled
or foreign is found out here, a broken one by its own hashes.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from replicad.errors import Damaged
from replicad.restore.faults import Unusable, suspected
from replicad.restore.segments import OpenSegment, State, index_bytes, open_segment
from replicad.segment import read_block

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping, Sequence

    from replicad.plan.restore import PlannedSegment
    from replicad.restore.preparation import Preparation
    from replicad.restore.settled import Frames
    from replicad.restore.workshop import Workshop

_AHEAD = 16  # segments opened before their turn
_RANGE_BYTES = 4 << 20  # stored bytes of neighbouring blocks fetched in one request


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Segments that follow one another, and the state that the oldest one continues from."""

    base: str  # what that state was found in, for messages
    state: State
    parts: Sequence[PlannedSegment]  # oldest first
    opened: Mapping[str, OpenSegment]  # those that were read already, by their key


class Chain:
    """The segments of one attempt.

    Args:
        workshop: what the parts of the attempt share.
        prepared: the plan, its manifest, which the oldest segment has to fit, and its newest segment.
        way: the segments that lead on from a state which is not the manifest's; None: all of the plan.
    """

    def __init__(self, workshop: Workshop, prepared: Preparation, way: Way | None = None) -> None:
        self._workshop = workshop
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
        parts = deque(reversed(self._way.parts))
        opening: deque[tuple[PlannedSegment, asyncio.Task[tuple[OpenSegment, int]]]] = deque()
        newer: tuple[str, State] | None = None
        while parts or opening:
            while parts and len(opening) < _AHEAD:
                part = parts.popleft()
                opening.append((part, group.create_task(self._open(part))))
            part, task = opening.popleft()
            opened, held_bytes = await task
            _check_link(newer, part.name, opened.state_after(part.through))
            newer = part.name, opened.state_after(part.after)
            if opened.body is None:
                await self._place_large(group, part, opened)
                self._workshop.ahead.give_back(held_bytes)
            else:
                await self._place_whole(group, part, opened, held_bytes)
        _check_link(newer, self._way.base, self._way.state)

    async def _open(self, part: PlannedSegment) -> tuple[OpenSegment, int]:
        """Return the segment, and how much memory it holds until its turn is over."""
        if self._newest is not None and part.stored == self._newest.segment:
            return self._newest, 0
        if (known := self._way.opened.get(part.name)) is not None:
            return known, 0
        held_bytes = await self._workshop.ahead.take(index_bytes(part.stored))
        with suspected(part.name):
            opened = await open_segment(self._workshop.fetch, part.stored, database_id=self._plan.line.database_id)
        if opened.index.header.page_size != self._manifest.page_size:
            found = opened.index.header.page_size
            error = Damaged(what=part.name, where="page_size", expected=self._manifest.page_size, found=found)
            raise Unusable(error, part.name, self._plan.manifest.name)
        return opened, held_bytes

    async def _place_whole(
        self, group: asyncio.TaskGroup, part: PlannedSegment, opened: OpenSegment, held_bytes: int
    ) -> None:
        """Start writing a segment that was fetched whole."""
        workshop, index = self._workshop, opened.index
        wanted = list(workshop.settled.frames(index, part.after, part.through))
        raw_bytes = max((index.blocks[number].frames for number, _ in wanted), default=0) * index.header.page_size
        taken_bytes = await workshop.work.take(raw_bytes)

        async def write() -> None:
            with suspected(part.name):
                await workshop.fetch.threads.run(self._write, opened, wanted, 0, opened.body or b"")
            workshop.work.give_back(taken_bytes)
            workshop.ahead.give_back(held_bytes)
            workshop.progress.advanced(part.stored.stored.size_bytes)

        group.create_task(write())

    async def _place_large(self, group: asyncio.TaskGroup, part: PlannedSegment, opened: OpenSegment) -> None:
        """Start fetching and writing those blocks of a large segment that are needed."""
        index = opened.index
        unneeded_bytes = part.stored.stored.size_bytes
        row: list[tuple[int, Frames]] = []  # neighbouring blocks, by falling number
        row_bytes = 0
        for number, frames in self._workshop.settled.frames(index, part.after, part.through):
            stored_bytes = index.blocks[number].stored_bytes
            if row and (number != row[-1][0] - 1 or row_bytes + stored_bytes > _RANGE_BYTES):
                await self._place_row(group, opened, row)
                row, row_bytes = [], 0
            row.append((number, frames))
            row_bytes += stored_bytes
            unneeded_bytes -= stored_bytes
        if row:
            await self._place_row(group, opened, row)
        self._workshop.progress.advanced(unneeded_bytes)

    async def _place_row(self, group: asyncio.TaskGroup, opened: OpenSegment, row: list[tuple[int, Frames]]) -> None:
        workshop, name, blocks = self._workshop, opened.segment.name, opened.index.blocks
        start = blocks[row[-1][0]].offset
        stop = blocks[row[0][0]].offset + blocks[row[0][0]].stored_bytes
        raw_bytes = max(blocks[number].frames for number, _ in row) * opened.index.header.page_size
        taken_bytes = await workshop.work.take(2 * (stop - start) + raw_bytes)

        async def fetch() -> None:
            with suspected(name):
                await workshop.fetch.proven(name, partial(self._write, opened, row, start), start=start, stop=stop)
            workshop.work.give_back(taken_bytes)
            workshop.progress.advanced(stop - start)

        group.create_task(fetch())

    def _write(self, opened: OpenSegment, wanted: Sequence[tuple[int, Frames]], offset: int, body: bytes) -> None:
        """Write the wanted frames of blocks; `body` is the object from `offset` on. Runs in a thread."""
        view = memoryview(body)
        for number, frames in wanted:
            block = opened.index.blocks[number]
            stored = view[block.offset - offset : block.offset - offset + block.stored_bytes]
            raw = read_block(opened.index, number, stored, what=opened.segment.name)
            self._workshop.image.write_frames(frames, raw, block.first_frame)
            self._workshop.proof.written(pgno for pgno, _ in frames)


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
