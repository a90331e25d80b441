"""What is to be rolled up, read back and proven: nothing goes into a roll-up that a restore could not use."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from replicad.errors import Damaged, ObjectMissing
from replicad.plan.line import LineSegment
from replicad.position import TXID
from replicad.restore.rollups import OpenRollUp
from replicad.restore.segments import State, decode_member
from replicad.segment import Member, decode_rollup, encode_rollup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicad.errors import ReplicadError
    from replicad.layout import SegmentKey
    from replicad.plan.listing import SegmentObject
    from replicad.restore.fetch import Fetch


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An object that is to be rolled up: its segments, each proven, and the states at both ends."""

    key: SegmentKey
    members: Sequence[tuple[Member, bytes]]
    before: State
    after: State


class Unfit(Exception):
    """A source cannot be rolled up.

    Args:
        key: its key.
        error: why.
    """

    def __init__(self, key: SegmentKey, error: ReplicadError) -> None:
        super().__init__(str(error))
        self.key = key
        self.error = error


async def read_source(fetch: Fetch, found: SegmentObject, database_id: str) -> Source:
    """Fetch an object, and look at all of it.

    Raises:
        Unfit: it is damaged or gone.
        ReplicadError: the store failed, or a later replicad wrote it.
    """
    try:
        return await fetch.proven(found.name, partial(_proven, found, database_id))
    except (Damaged, ObjectMissing) as error:
        raise Unfit(found.key, error) from error


def put_together(sources: Sequence[Source]) -> bytes:
    """Return the roll-up of these. Runs in a thread.

    Raises:
        Unfit: one does not continue the one before it; which of the two is wrong is not known.
    """
    for before, source in pairwise(sources):
        if source.before != before.after:
            raise Unfit(source.key, _unlike(str(source.key), before.after, source.before))
    return encode_rollup(member for source in sources for member in source.members)


def _proven(found: SegmentObject, database_id: str, body: bytes) -> Source:
    """Return what an object holds, every hash compared. Runs in a thread.

    Raises:
        Damaged: it is not what its key says, or one of its segments does not continue the one before it.
        NewerFormat: it was written by a later replicad.
    """
    if len(body) != found.size_bytes:
        raise Damaged(what=found.name, where="size", expected=f"{found.size_bytes} bytes", found=len(body))
    whole = LineSegment(stored=found, until=found.key.last)
    parts = [whole]
    if found.is_rollup:
        rollup = OpenRollUp(segment=whole, directory=decode_rollup(body, what=found.name), body=body)
        rollup.check_identity()
        parts = [rollup.member(number) for number in range(len(rollup.directory))]
    members: list[tuple[Member, bytes]] = []
    before = after = State(0, 0)
    for part in parts:
        opened = decode_member(part, body, 0, database_id)
        begin = opened.state_after(TXID(part.first - 1))
        if members and begin != after:
            raise _unlike(part.stored.what, after, begin)
        before = before if members else begin
        key, after = part.stored.key, opened.state_after(part.stored.key.last)
        stored = opened.body or b""
        described = Member(first=key.first, last=key.last, last_ms=key.last_ms, offset=0, size_bytes=len(stored))
        members.append((described, stored))
    return Source(key=found.key, members=members, before=before, after=after)


def _unlike(what: str, expected: State, found: State) -> Damaged:
    return Damaged(
        what=what,
        where="state that it continues from",
        expected=f"checksum {expected.checksum:016x}, {expected.pages} pages",
        found=f"checksum {found.checksum:016x}, {found.pages} pages",
    )
