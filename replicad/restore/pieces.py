"""What a restore fetches with one request: a segment, a small roll-up, or as many segments of a large one as fit."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from replicad.errors import Damaged
from replicad.plan.restore import PlannedSegment
from replicad.position import TXID
from replicad.restore.faults import Unusable, suspected
from replicad.restore.rollups import open_rollup
from replicad.restore.rows import rows
from replicad.restore.segments import WHOLE_BYTES, OpenSegment, decode_member, open_segment

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence

    from replicad.plan.line import LineSegment
    from replicad.restore.fetch import Fetch

_AT_ONCE = 64  # members decoded in one go
_NEAR_BYTES = 64 << 10  # between two members: to read them costs no more than another request


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Segments of one object that are fetched with one request.

    Either `part` alone, which may be a small roll-up, or `members` of it, which is a large one.
    """

    part: PlannedSegment
    members: tuple[PlannedSegment, ...] = ()  # newest first
    besides_bytes: int = 0  # of a large roll-up, with its newest piece: what no piece of it holds

    @property
    def size_bytes(self) -> int:
        """How much is fetched."""
        return sum(one.stored.stored.size_bytes for one in self.members) or self.part.stored.stored.size_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedPiece:
    """A piece, and its bytes."""

    parts: Sequence[PlannedSegment]  # newest first
    body: bytes
    offset: int  # of the body in the object


async def pieces(fetch: Fetch, parts: Iterable[PlannedSegment]) -> AsyncGenerator[Piece, None]:
    """Return what is to be fetched for these parts, in their order, the newest first; reads what that takes.

    Raises:
        Unusable: a directory cannot be used.
        ReplicadError: the store failed.
    """
    for part in parts:
        if not part.stored.stored.is_rollup or part.stored.stored.size_bytes <= WHOLE_BYTES:
            yield Piece(part=part)
            continue
        with suspected(part.name):
            rollup = await open_rollup(fetch, part.stored)
        besides_bytes = part.stored.stored.size_bytes - rollup.used_bytes(part.after, part.through)
        for row in rows(rollup.parts(part.after, part.through), _stored_bytes, most_bytes=WHOLE_BYTES):
            if len(row) == 1:
                yield Piece(part=row[0], besides_bytes=besides_bytes)
            else:
                yield Piece(part=part, members=tuple(row), besides_bytes=besides_bytes)
            besides_bytes = 0


def neighbours(parts: Iterable[PlannedSegment]) -> Iterator[Piece]:
    """Put members of roll-ups, given the newest first, together into pieces; what little lies between comes with them.

    A segment that is no member, or is large, is a piece by itself.
    """
    row: list[PlannedSegment] = []
    for part in parts:
        if row and not _is_near(part, row):
            yield Piece(part=row[0], members=tuple(row) if len(row) > 1 else ())
            row = []
        row.append(part)
    if row:
        yield Piece(part=row[0], members=tuple(row) if len(row) > 1 else ())


async def fetch_piece(fetch: Fetch, piece: Piece) -> FetchedPiece:
    """Fetch what is more than one segment.

    Raises:
        ReplicadError: as `open_rollup`.
    """
    if not piece.members:
        rollup = await open_rollup(fetch, piece.part.stored)
        parts = tuple(rollup.parts(piece.part.after, piece.part.through))
        return FetchedPiece(parts=parts, body=rollup.body or b"", offset=0)
    newest, oldest = piece.members[0].stored.stored, piece.members[-1].stored.stored
    body = await fetch.read(piece.part.name, start=oldest.offset, stop=newest.offset + newest.size_bytes)
    return FetchedPiece(parts=piece.members, body=body, offset=oldest.offset)


async def opened(
    fetch: Fetch, fetched: FetchedPiece, *, database_id: str
) -> AsyncGenerator[tuple[PlannedSegment, OpenSegment], None]:
    """Return the segments of a piece opened, in their order; one that is broken is fetched by itself once more.

    Raises:
        ReplicadError: as `open_segment`.
    """
    rest = iter(fetched.parts)
    while batch := tuple(islice(rest, _AT_ONCE)):
        found = await fetch.threads.run(_decode_batch, batch, fetched, database_id)
        for part, decoded in zip(batch, found, strict=True):
            yield part, decoded or await open_segment(fetch, part.stored, database_id=database_id)


async def opened_newest_first(
    fetch: Fetch, parts: Iterable[PlannedSegment], *, database_id: str
) -> AsyncGenerator[tuple[PlannedSegment, OpenSegment | None], None]:
    """Return the segments of a plan, given the newest first, one after another; None: it is not in a roll-up.

    Raises:
        Unusable: a roll-up, or a segment in it, cannot be used.
        ReplicadError: the store failed.
    """
    async for piece in pieces(fetch, parts):
        if not is_several(piece):
            yield piece.part, None
            continue
        with suspected(piece.part.name):
            fetched = await fetch_piece(fetch, piece)
            async for part, found in opened(fetch, fetched, database_id=database_id):
                yield part, found


async def segments_in(fetch: Fetch, segment: LineSegment, *, database_id: str) -> AsyncGenerator[OpenSegment, None]:
    """Open a segment, or one after another those of a roll-up, the newest first.

    Raises:
        Damaged, NewerFormat, ObjectMissing: one of them cannot be read.
        ReplicadError: the store failed.
    """
    whole = PlannedSegment(stored=segment, after=TXID(segment.first - 1), through=segment.until)
    try:
        async for part, member in opened_newest_first(fetch, (whole,), database_id=database_id):
            yield member or await open_segment(fetch, part.stored, database_id=database_id)
    except Unusable as found:
        raise found.error from found


def is_several(piece: Piece) -> bool:
    """Return whether a piece is more than one segment."""
    return bool(piece.members) or piece.part.stored.stored.is_rollup


def _is_near(part: PlannedSegment, row: Sequence[PlannedSegment]) -> bool:
    """Return whether a member stands so close before the others that one request should bring it too."""
    older, before, newest = part.stored.stored, row[-1].stored.stored, row[0].stored.stored
    if older.inside is None or before.inside is None or older.name != before.name:
        return False
    end = newest.offset + newest.size_bytes
    return before.offset - older.offset - older.size_bytes <= _NEAR_BYTES and end - older.offset <= WHOLE_BYTES


def _stored_bytes(part: PlannedSegment) -> int:
    return part.stored.stored.size_bytes


def _decode_batch(batch: Sequence[PlannedSegment], fetched: FetchedPiece, database_id: str) -> list[OpenSegment | None]:
    """Decode members; None: it is broken. Runs in a thread."""
    found: list[OpenSegment | None] = []
    for part in batch:
        try:
            found.append(decode_member(part.stored, fetched.body, fetched.offset, database_id))
        except Damaged:
            found.append(None)
    return found
