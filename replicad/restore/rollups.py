"""Roll-ups read: which segments stand in one, and the one of them that tells of a transaction or a time.

A roll-up that is small is fetched whole. Of a large one the directory is read, from its end, and then what is wanted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from replicad.errors import Damaged
from replicad.layout import SegmentKey, log_begin, log_prefix
from replicad.plan.line import LineSegment
from replicad.plan.listing import Inside, SegmentObject
from replicad.plan.restore import PlannedSegment
from replicad.position import TXID
from replicad.restore.segments import WHOLE_BYTES, OpenSegment, decode_member, open_segment
from replicad.segment import ROLLUP_TRAILER, Directory, decode_rollup, read_directory, read_rollup_trailer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from replicad.plan.target import CommitTimes
    from replicad.position import Epoch
    from replicad.restore.fetch import Fetch
    from replicad.segment import RollUpTrailer
    from replicad.store.protocol import ObjectStore, StoredObject

TAIL_BYTES = 256 << 10
"""The end of a large roll-up that is read first: it holds the directory of 6,000 members."""


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
                stored=part, after=max(after, TXID(part.first - 1)), through=min(through, part.stored.key.last)
            )


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


async def list_log(
    store: ObjectStore, epoch: Epoch, *, after: str = "", last: TXID | None = None
) -> AsyncIterator[StoredObject]:
    """Iterate over the log of an epoch behind a key, as far as its objects begin no later than with a transaction.

    Raises:
        ReplicadError: the store failed.
    """
    end = None if last is None else log_begin(epoch, TXID(last + 1))
    async for row in store.list(log_prefix(epoch), after=after):
        if end is not None and row.key >= end:
            return
        yield row


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
