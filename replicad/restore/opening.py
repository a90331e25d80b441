"""The segments of a plan opened, from the newest to the oldest, as far ahead of their turn as memory allows.

What the plan names is fetched with one request each, a roll-up too unless it is large; the segments in it are then
decoded a few at a time, when their turn comes.
"""

from __future__ import annotations

from collections import deque
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.restore.faults import suspected
from replicad.restore.pieces import FetchedPiece, fetch_piece, is_several, opened, pieces
from replicad.restore.segments import OpenSegment, index_bytes, open_segment

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, Callable, Iterable

    from replicad.plan.restore import PlannedSegment
    from replicad.restore.pieces import Piece
    from replicad.restore.workshop import Workshop

_AHEAD = 16  # pieces fetched before their turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A segment whose turn it is."""

    part: PlannedSegment
    opened: OpenSegment
    older: str  # the object that the state in front of it comes from
    held_bytes: int  # to be given back to the workshop's memory for what is opened ahead


class Opening:
    """Opens what a chain goes through.

    Args:
        workshop: what the parts of the attempt share.
        database_id: of the line.
        base: the object that the oldest segment rests on.
        known: returns a segment that was opened already.
    """

    def __init__(
        self,
        workshop: Workshop,
        *,
        database_id: str,
        base: str,
        known: Callable[[PlannedSegment], OpenSegment | None],
    ) -> None:
        self._workshop = workshop
        self._database_id = database_id
        self._base = base
        self._known = known

    async def newest_first(
        self, group: asyncio.TaskGroup, parts: Iterable[PlannedSegment]
    ) -> AsyncGenerator[Step, None]:
        """Open these, given the newest first.

        Raises:
            Unusable: an object cannot be used.
            ReplicadError: the store failed.
        """
        ahead: deque[tuple[Piece, asyncio.Task[tuple[OpenSegment | FetchedPiece, int]]]] = deque()
        async with aclosing(pieces(self._workshop.fetch, parts)) as coming:
            while True:
                while len(ahead) < _AHEAD and (piece := await anext(coming, None)) is not None:
                    ahead.append((piece, group.create_task(self._fetch(piece))))
                if not ahead:
                    return
                piece, task = ahead.popleft()
                found, held_bytes = await task
                self._workshop.progress.advanced(piece.besides_bytes)
                older = ahead[0][0].part.name if ahead else self._base
                if isinstance(found, OpenSegment):
                    yield Step(part=piece.part, opened=found, older=older, held_bytes=held_bytes)
                    continue
                async with aclosing(self._members(piece, found, older)) as members:
                    async for step in members:
                        yield step
                self._workshop.ahead.give_back(held_bytes)

    async def _fetch(self, piece: Piece) -> tuple[OpenSegment | FetchedPiece, int]:
        """Return the segment opened, or the segments fetched, and how much memory that takes until it is let go of."""
        several = is_several(piece)
        if not several and (known := self._known(piece.part)) is not None:
            return known, 0
        part, fetch = piece.part, self._workshop.fetch
        wanted_bytes = 2 * piece.size_bytes if several else index_bytes(part.stored)
        held_bytes = await self._workshop.ahead.take(wanted_bytes)
        with suspected(part.name):
            if several:
                return await fetch_piece(fetch, piece), held_bytes
            return await open_segment(fetch, part.stored, database_id=self._database_id), held_bytes

    async def _members(self, piece: Piece, fetched: FetchedPiece, older: str) -> AsyncGenerator[Step, None]:
        """Decode the segments of a piece in their turn."""
        fetch, name, last = self._workshop.fetch, piece.part.name, fetched.parts[-1]
        used_bytes = sum(part.stored.stored.size_bytes for part in fetched.parts)
        if not piece.members:  # with the directory, and what is not wanted of it
            self._workshop.progress.advanced(piece.part.stored.stored.size_bytes - used_bytes)
        with suspected(name):
            async with aclosing(opened(fetch, fetched, database_id=self._database_id)) as members:
                async for part, found in members:
                    yield Step(part=part, opened=found, older=older if part is last else name, held_bytes=0)
