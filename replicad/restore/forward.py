"""Forward in place: a file that is an earlier state of the line becomes the target by the pages that differ.

What is in the way of a quick restart on a disk that is still there is not the fetching: it is writing the whole
database anew. A file whose checksum is that of a snapshot, or of a transaction, on the way to the target lacks the
segments behind that, and nothing else. So the segments are opened from the newest back to that state, the pages they
hold are put into a rollback journal and then overwritten, and the whole is proven as ever: by the checksum over all
pages, those that changed read back from the file.

Whatever does not fit here (another history, a database that became smaller on the way, most pages changed) is left to
the restore beside the file, which takes any.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from replicad.errors import FileUnusable
from replicad.host.interruptible import interruptible
from replicad.position import TXID
from replicad.restore.chain import Chain, Way
from replicad.restore.faults import suspected
from replicad.restore.lending import Lending
from replicad.restore.pieces import opened_newest_first
from replicad.restore.prove import Proof
from replicad.restore.referring import Referring
from replicad.restore.segments import State, open_segment
from replicad.restore.settled import Settled
from replicad.restore.together import task_group
from replicad.restore.workshop import Workshop

if TYPE_CHECKING:
    from replicad.host.threads import Threads
    from replicad.layout import SegmentKey
    from replicad.plan.restore import PlannedSegment
    from replicad.restore.fetch import Fetch
    from replicad.restore.place import Place
    from replicad.restore.preparation import Preparation
    from replicad.restore.progress import Progress
    from replicad.restore.request import Evidence
    from replicad.restore.segments import OpenSegment
    from replicad.restore.standing import Standing

HELD_SHARE = 4
"""The part of the memory that bodies of segments may take until they are written."""

_READERS = 2  # threads that read the old file: more than one, for hashing waits while the disk does not
_LENT_SHARE = 8  # the part that older pages of the file may take
_MOST = 2  # a file is changed where it stands when at most one page in so many changes: each is written twice


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """A file that has become the target where it stands, once that is committed."""

    kept_bytes: int  # stayed as they were
    evidence: Evidence | None


class Forward:
    """One attempt. Nothing that it does holds before `Standing.commit`.

    Args:
        standing: the file, opened.
        fetch: where segments come from.
        place: lends a name for the journal.
        progress: is told how far it is.
        memory_bytes: what may be in flight.
    """

    def __init__(
        self, standing: Standing, fetch: Fetch, place: Place, progress: Progress, *, memory_bytes: int
    ) -> None:
        self._standing = standing
        self._fetch = fetch
        self._place = place
        self._progress = progress
        self._memory_bytes = memory_bytes
        self._opened: dict[SegmentKey, OpenSegment] = {}

    async def run(self, prepared: Preparation) -> Changed | None:
        """Make the file the target, proven and synced.

        None: this is not the way, and `Standing.close` leaves the file as it was.

        Raises:
            Unusable: an object of the plan cannot be used; the file may be half changed.
            ReplicadError: the store or the disk failed; likewise.
        """
        standing = self._standing
        if standing.page_size != prepared.manifest.page_size:
            return None
        way = await self._find(prepared)
        pgnos = None if way is None or _begins_inside(way) else _overwritten(way, prepared, standing.pages)
        if way is None or pgnos is None:
            return None
        threads = self._fetch.threads
        checksum = await threads.run(standing.begin, pgnos, self._place.temporary())
        image = await threads.run(standing.image, prepared.position.pages)
        proof = Proof(image, hashes=standing.hashes_for(prepared.position.pages))
        proof.presume(checksum, standing.pages, pgnos)
        self._progress.started(sum(part.stored.stored.size_bytes for part in way.parts))
        workshop = Workshop(self._fetch, image, proof, self._progress, memory_bytes=self._memory_bytes)
        await self._apply(workshop, prepared, way)
        async with task_group() as group:
            proven = group.create_task(interruptible(threads, proof.finish))
            group.create_task(threads.run(image.sync))
        if proven.result() != prepared.position.checksum:
            return None
        kept_bytes = (standing.pages - len(pgnos)) * standing.page_size
        return Changed(kept_bytes=kept_bytes, evidence=await threads.run(proof.evidence))

    async def _apply(self, workshop: Workshop, prepared: Preparation, way: Way) -> None:
        """Write what the segments hold; what they refer to in the file is read before any of it is overwritten."""
        threads, memory_bytes = self._fetch.threads, self._memory_bytes
        referring = Referring(workshop, database_id=prepared.plan.line.database_id, memory_bytes=memory_bytes)
        lent_bytes = memory_bytes // _LENT_SHARE
        lending = Lending(workshop.image, pages=self._standing.pages, memory_bytes=lent_bytes)
        parts = [(way.opened[part.key].index, part.after, part.through) for part in reversed(way.parts)]
        try:
            await threads.run(lending.read, parts)
            async with task_group() as group:
                await Chain(workshop, prepared, referring, way).apply(group)
            await threads.run(lending.answer, workshop)
            await referring.unpack(way.base)
        finally:
            await threads.run(lending.close)
            await threads.run(workshop.close)

    async def look_ahead(self, prepared: Preparation) -> None:
        """Open the newest segments, which are needed in any case, while the file is still being read.

        Raises:
            Unusable: one of them cannot be used.
            ReplicadError: the store failed.
        """
        if self._standing.page_size != prepared.manifest.page_size:
            return
        room_bytes = self._memory_bytes // HELD_SHARE
        async with task_group() as group:
            for part in reversed(prepared.plan.segments):
                room_bytes -= part.stored.stored.size_bytes
                if room_bytes < 0 or part.stored.stored.is_rollup:
                    return
                group.create_task(self._open(prepared, part))

    async def _find(self, prepared: Preparation) -> Way | None:
        """Open segments from the newest on, back to the one that holds the state of the file."""
        plan, state = prepared.plan, self._standing.state
        parts: list[PlannedSegment] = []
        held_bytes = 0
        if state == State(prepared.position.checksum, prepared.position.pages):
            return Way(base=str(self._standing.path), state=state, parts=(), opened={})
        newest_first = opened_newest_first(self._fetch, reversed(plan.segments), database_id=plan.line.database_id)
        async with aclosing(newest_first) as steps:
            async for part, member in steps:
                found = member or self._opened.get(part.key) or await self._open(prepared, part)
                held_bytes += len(found.body or b"")
                fits = held_bytes <= self._memory_bytes // HELD_SHARE
                # of what does not fit, blocks are fetched when their turn comes
                self._opened[part.key] = found if fits else replace(found, body=None)
                after = _transaction(found, part, state)
                parts.append(part if after is None else replace(part, after=after))
                if after is not None:
                    return Way(base=str(self._standing.path), state=state, parts=parts[::-1], opened=self._opened)
        position = prepared.manifest.position
        if state != State(position.checksum, position.pages):
            return None
        return Way(base=plan.manifest.name, state=state, parts=parts[::-1], opened=self._opened)

    async def _open(self, prepared: Preparation, part: PlannedSegment) -> OpenSegment:
        if prepared.newest is not None and part.stored == prepared.newest.segment:
            found = prepared.newest
        else:
            with suspected(part.name):
                found = await open_segment(self._fetch, part.stored, database_id=prepared.plan.line.database_id)
        self._opened[part.key] = found
        return found


async def add_all(standing: Standing, threads: Threads) -> bool:
    """Read the whole file and add up its checksum, unless it is known; return whether it could be read."""
    if standing.is_known:
        return True
    try:
        async with task_group() as group:
            for part in range(_READERS):
                group.create_task(interruptible(threads, partial(standing.add, part, _READERS)))
    except FileUnusable:
        return False
    return True


def _transaction(opened: OpenSegment, part: PlannedSegment, state: State) -> TXID | None:
    """Return the newest transaction of a segment, or the one before its first, that ended in this state."""
    for number in range(part.through - 1, part.after - 1, -1):
        if opened.state_after(TXID(number)) == state:
            return TXID(number)
    return None


def _begins_inside(way: Way) -> bool:
    """Return whether the file is a state inside a segment that refers to pages of the state in front of it."""
    if not way.parts:
        return False
    index = way.opened[way.parts[0].key].index
    return bool(index.references) and way.parts[0].after >= index.header.first_txid


def _overwritten(way: Way, prepared: Preparation, pages: int) -> list[int] | None:
    """Return which pages of the file change, in order; None when it is better put together anew."""
    settled = Settled(prepared.position.pages, prepared.manifest.page_size)
    pgnos: list[int] = []
    for part in reversed(way.parts):
        for _, frames in settled.frames(way.opened[part.key].index, part.after, part.through):
            pgnos += [pgno for pgno, _ in frames if pgno <= pages]
        if len(pgnos) * _MOST > pages:
            return None
    # a database that was smaller on the way has pages that came back as zeros, and that no segment holds
    return None if settled.bound < pages else sorted(pgnos)
