"""Roll-ups read: which segments stand in one, and these opened, several with one request.

A roll-up that is small is fetched whole. Of a large one the directory is read, from its end, and then of the members
those that are wanted, in pieces that hold as many as one request should bring.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from replicad.errors import Damaged
from replicad.layout import SegmentKey
from replicad.plan.line import LineSegment
from replicad.plan.listing import Inside, SegmentObject
from replicad.plan.restore import PlannedSegment
from replicad.restore.faults import suspected
from replicad.restore.segments import WHOLE_BYTES, OpenSegment, decode_member, open_segment
from replicad.segment import ROLLUP_TRAILER, Directory, decode_rollup, read_directory, read_rollup_trailer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence

    from replicad.plan.target import CommitTimes
    from replicad.position import TXID
    from replicad.restore.fetch import Fetch
    from replicad.segment import RollUpTrailer

TAIL_BYTES = 256 << 10
"""The end of a large roll-up that is read first: it holds the directory of 6,000 members."""

_AT_ONCE = 64  # members decoded in one go
_NEAR_BYTES = 64 << 10  # between two members: to read them costs no more than another request


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRollUp:
    """A roll-up whose directory was read."""

    segment: LineSegment
    directory: Directory
    body: bytes | None  # the whole object, when it is small

    def check_identity(self) -> None:
        """Refuse a sound roll-up under another's key: it is as bad as a broken one.

        Raises:
            Damaged: it is.
        """
        key, oldest, newest = self.segment.stored.key, self.directory[0], self.directory[-1]
        for where, expected, found in (
            ("first TXID", key.first, oldest.first),
            ("last TXID", key.last, newest.last),
            ("last commit time", key.last_ms, newest.last_ms),
        ):
            if expected != found:
                raise Damaged(what=self.segment.name, where=where, expected=expected, found=found)

    def member(self, number: int) -> LineSegment:
        """Return one of its segments, by number from 0."""
        found, rollup = self.directory[number], self.segment.stored.key
        key = SegmentKey(epoch=rollup.epoch, first=found.first, last=found.last, last_ms=found.last_ms)
        inside = Inside(rollup=rollup, offset=found.offset)
        stored = SegmentObject(key=key, size_bytes=found.size_bytes, inside=inside)
        return LineSegment(stored=stored, until=min(found.last, self.segment.until))

    def used_bytes(self, after: TXID, through: TXID) -> int:
        """Return the size of the segments that `parts` returns."""
        oldest = self.directory[self.directory.number_of(after + 1)]
        newest = self.directory[self.directory.number_of(through)]
        return newest.offset + newest.size_bytes - oldest.offset

    def parts(self, after: TXID, through: TXID) -> Iterator[PlannedSegment]:
        """Return the segments that hold the transactions behind `after` up to `through`, newest first."""
        for number in range(self.directory.number_of(through), self.directory.number_of(after + 1) - 1, -1):
            part = self.member(number)
            yield PlannedSegment(
                stored=part, after=max(after, _before(part)), through=min(through, part.stored.key.last)
            )


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


async def open_rollup(fetch: Fetch, segment: LineSegment) -> OpenRollUp:
    """Return a roll-up opened.

    Raises:
        Damaged: it is no roll-up, or another one than its key says.
        NewerFormat: it was written by a later replicad.
        ReplicadError: the store failed.
    """
    name, size_bytes = segment.name, segment.stored.size_bytes
    body: bytes | None = None
    if size_bytes <= WHOLE_BYTES:
        directory, body = await fetch.proven(name, partial(_decode_whole, name))
    else:
        directory = await _read_directory(fetch, name, size_bytes)
    rollup = OpenRollUp(segment=segment, directory=directory, body=body)
    rollup.check_identity()
    return rollup


async def open_at(fetch: Fetch, segment: LineSegment, txid: TXID, *, database_id: str) -> OpenSegment:
    """Return the segment that holds a transaction opened: this one, or that member of this roll-up.

    Raises:
        ReplicadError: as `open_segment` and `open_rollup`.
    """
    if not segment.stored.is_rollup:
        return await open_segment(fetch, segment, database_id=database_id)
    rollup = await open_rollup(fetch, segment)
    return await _open_member(fetch, rollup, rollup.directory.number_of(txid), database_id=database_id)


async def commit_times(fetch: Fetch, segment: LineSegment, ms: int, *, database_id: str) -> CommitTimes:
    """Return the commit times of a segment's transactions, of a roll-up those that settle what `ms` (Unix) means.

    Commit times never go backwards. So of a roll-up the directory tells which member to look into: the first that goes
    on behind that time, or the one in which the line ends.

    Raises:
        ReplicadError: as `open_segment` and `open_rollup`.
    """
    if not segment.stored.is_rollup:
        return (await open_segment(fetch, segment, database_id=database_id)).commit_times
    rollup = await open_rollup(fetch, segment)
    number = next(
        (at for at, found in enumerate(rollup.directory) if found.last_ms > ms or found.last >= segment.until),
        len(rollup.directory) - 1,
    )
    decisive = await _open_member(fetch, rollup, number, database_id=database_id)
    return (*((found.last, found.last_ms) for found in rollup.directory), *decisive.commit_times)


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
        for row in _rows(rollup.parts(part.after, part.through)):
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


def is_several(piece: Piece) -> bool:
    """Return whether a piece is more than one segment."""
    return bool(piece.members) or piece.part.stored.stored.is_rollup


def _before(part: LineSegment) -> TXID:
    return type(part.first)(part.first - 1)


def _is_near(part: PlannedSegment, row: Sequence[PlannedSegment]) -> bool:
    """Return whether a member stands so close before the others that one request should bring it too."""
    older, before, newest = part.stored.stored, row[-1].stored.stored, row[0].stored.stored
    if older.inside is None or before.inside is None or older.name != before.name:
        return False
    end = newest.offset + newest.size_bytes
    return before.offset - older.offset - older.size_bytes <= _NEAR_BYTES and end - older.offset <= WHOLE_BYTES


def _rows(parts: Iterable[PlannedSegment]) -> Iterator[list[PlannedSegment]]:
    """Put neighbours together, as many as one request should bring."""
    row: list[PlannedSegment] = []
    row_bytes = 0
    for part in parts:
        size_bytes = part.stored.stored.size_bytes
        if row and row_bytes + size_bytes > WHOLE_BYTES:
            yield row
            row, row_bytes = [], 0
        row.append(part)
        row_bytes += size_bytes
    if row:
        yield row


def _decode_whole(name: str, body: bytes) -> tuple[Directory, bytes]:
    return decode_rollup(body, what=name), body


async def _read_directory(fetch: Fetch, name: str, size_bytes: int) -> Directory:
    """Read the end, and the directory by itself when it is longer than that."""
    begin = size_bytes - TAIL_BYTES

    def read_tail(tail: bytes) -> tuple[RollUpTrailer, Directory | None]:
        trailer = read_rollup_trailer(tail, object_bytes=size_bytes, what=name)
        if trailer.directory_offset < begin:
            return trailer, None
        return trailer, read_directory(
            tail[trailer.directory_offset - begin : -ROLLUP_TRAILER.size], trailer, what=name
        )

    trailer, directory = await fetch.proven(name, read_tail, start=begin)
    if directory is not None:
        return directory
    stop = size_bytes - ROLLUP_TRAILER.size
    read = partial(read_directory, trailer=trailer, what=name)
    return await fetch.proven(name, read, start=trailer.directory_offset, stop=stop)


async def _open_member(fetch: Fetch, rollup: OpenRollUp, number: int, *, database_id: str) -> OpenSegment:
    part = rollup.member(number)
    if rollup.body is not None:
        try:
            return await fetch.threads.run(decode_member, part, rollup.body, 0, database_id)
        except Damaged:  # a second look, as in `Fetch.proven`
            pass
    return await open_segment(fetch, part, database_id=database_id)


def _decode_batch(batch: Sequence[PlannedSegment], fetched: FetchedPiece, database_id: str) -> list[OpenSegment | None]:
    """Decode members; None: it is broken. Runs in a thread."""
    found: list[OpenSegment | None] = []
    for part in batch:
        try:
            found.append(decode_member(part.stored, fetched.body, fetched.offset, database_id))
        except Damaged:
            found.append(None)
    return found
