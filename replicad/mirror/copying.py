"""Bringing a second place up to a replica as it was listed: in an order that can be broken off anywhere.

It begins anew with two listings each time, so it is resumed by doing it again. What vanishes on the way (the source's
owner deletes what it rolled up, or need not keep) was replaced by something that the next listing shows.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from replicad.errors import Damaged, ObjectMissing
from replicad.mirror.difference import Pair, pairs
from replicad.mirror.keyrings import refuse_other_encryption
from replicad.mirror.sameness import other_history, other_size, refuse_other
from replicad.mirror.sending import Sender
from replicad.plan.copying import course_of, is_manifest, is_mark
from replicad.plan.line import line_of_history
from replicad.plan.reach import reachable
from replicad.restore.history import read_history
from replicad.restore.progress import Silent
from replicad.restore.together import gather_bounded, task_group
from replicad.snapshot import decode_manifest

if TYPE_CHECKING:
    from replicad.host.threads import Threads
    from replicad.mirror.side import Side
    from replicad.plan.copying import Course
    from replicad.plan.line import History, Line
    from replicad.restore.progress import Progress

_LISTINGS = 3  # until one has no hole at its end
_ROUNDS = 5  # in which something had vanished


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOptions:
    """How to copy."""

    concurrency: int = 4  # objects on their way at once
    verify: bool = False  # read every object back, on both sides
    dry_run: bool = False  # only find out what is missing


@dataclass(slots=True, kw_only=True)
class Copied:
    """What was done, and found."""

    last_txid: int = 0  # of the line, as it was listed
    epoch: int = 0  # its newest
    missing: int = 0  # objects that the destination lacked
    missing_bytes: int = 0
    present: int = 0  # objects that it had
    present_bytes: int = 0
    sent: int = 0
    sent_bytes: int = 0
    verified: int = 0
    vanished: int = 0  # deleted by the source's owner on the way
    foreign: int = 0  # keys of the source that are none of replicad's
    damaged: list[str] = field(default_factory=list)  # in the source, or other bytes at the destination: keys


async def copy_replica(
    source: Side, destination: Side, threads: Threads, *, options: CopyOptions, progress: Progress | None = None
) -> Copied:
    """Copy what the destination lacks; return when all that was listed is there.

    Args:
        source: a database's own part of a store.
        destination: likewise, where the same keys will stand.
        threads: for hashing.
        options: see there.
        progress: is told of the bytes sent.

    Raises:
        NoBackup: the source holds no history.
        WrongKey: the source needs other keys than those given, or none; or the destination one more.
        OtherHistory: the destination holds another one; nothing was changed.
        Damaged: the starts of the source's epochs contradict one another, or the destination does not list what it
            has stored.
        StoreUnreachable, StoreRefused, NoSpace: one of the stores failed. What was copied stays, and is of use.
    """
    watch = progress or Silent()
    try:
        return await _Copying(source, destination, threads, options, watch).run()
    finally:
        watch.finished()


class _Copying:
    def __init__(
        self, source: Side, destination: Side, threads: Threads, options: CopyOptions, progress: Progress
    ) -> None:
        self._source = source
        self._destination = destination
        self._options = options
        self._progress = progress
        self._sender = Sender(source, destination, threads, concurrency=options.concurrency)
        self._done = Copied()

    async def run(self) -> Copied:
        for number in range(_ROUNDS):
            await refuse_other_encryption(self._source, self._destination)
            there = await read_history(self._destination.read)  # before the source: which then knows all of that
            history, line = await self._settled()
            await refuse_other(self._source, history, self._destination, there)
            course = course_of(line, history.listing)
            chunks = await self._chunks_of_newest(course, there)
            wanted = await self._survey(course, chunks, first=number == 0)
            if self._options.dry_run:
                return self._done
            vanished = self._done.vanished
            await self._send_newest(course, chunks, wanted)
            await self._send_rest(course)
            lost = await self._look_again(course)
            if not lost and self._done.vanished == vanished:
                return self._done
        if lost:
            expected, where = f"{lost} bytes", f"the listing of {self._destination.stored.url}"
            raise Damaged(what="the copy", where=where, expected=expected, found="objects missing that were sent")
        return self._done

    async def _settled(self) -> tuple[History, Line]:
        """List the source; again, when the newest transaction seems out of reach: a listing takes its time."""
        for _ in range(_LISTINGS):
            history = await read_history(self._source.read)
            line = line_of_history(history)
            spans = reachable(line)
            if spans and spans[-1].last >= line.last_txid:
                break
        self._done.last_txid, self._done.epoch, self._done.foreign = line.last_txid, line.head, line.foreign
        return history, line

    async def _chunks_of_newest(self, course: Course, there: History) -> frozenset[str]:
        """Return the chunks that the newest snapshot lists, when it is not at the destination yet."""
        snapshot = course.snapshot
        if snapshot is None or snapshot.name in {found.name for found in there.listing.manifests}:
            return frozenset()
        try:
            manifest = decode_manifest(await self._source.read.get(snapshot.name), what=snapshot.name)
        except (ObjectMissing, Damaged):
            return frozenset()  # it is noted when it is sent
        return frozenset(chunk.key for chunk in manifest.chunks)

    async def _survey(self, course: Course, chunks: frozenset[str], *, first: bool) -> dict[str, int]:
        """Go through both listings; return the sizes of what has to go before the rest. Nothing was changed so far.

        Raises:
            OtherHistory: an object has another size at the destination.
        """
        wanted = chunks.union(course.claims, course.newest, course.starts)
        missing: dict[str, int] = {}
        found = replace(self._done, missing=0, missing_bytes=0, present=0, present_bytes=0)
        async for pair in pairs(self._source.stored, self._destination.stored):
            if pair.there_bytes is None:
                found.missing += 1
                found.missing_bytes += pair.here_bytes
                if pair.key in wanted or is_mark(pair.key):
                    missing[pair.key] = pair.here_bytes
            elif pair.there_bytes != pair.here_bytes:
                told = other_size(pair.key, pair.here_bytes, pair.there_bytes)
                raise other_history(self._source, self._destination, told)
            else:
                found.present += 1
                found.present_bytes += pair.here_bytes
        if first:
            self._done = found
            self._progress.started(found.missing_bytes)
        return missing

    async def _send_newest(self, course: Course, chunks: frozenset[str], missing: dict[str, int]) -> None:
        def steps(keys: tuple[str, ...]) -> list[str]:
            return [key for key in keys if key in missing]

        for key in (*steps(course.claims), *filter(is_mark, missing)):
            await self._send(key, missing[key])
        sends = (partial(self._send, key, missing[key]) for key in steps(tuple(chunks)))
        await gather_bounded(sends, self._options.concurrency)
        for key in steps(course.newest):
            await self._send(key, missing[key])
        for key in steps(course.starts):
            await self._send(key, missing[key])

    async def _send_rest(self, course: Course) -> None:
        """Send, or read back, what belongs to the listing; a manifest when all before it has arrived."""
        limit = self._options.concurrency
        room = asyncio.Semaphore(limit)
        async with task_group() as group:
            async for pair in pairs(self._source.stored, self._destination.stored):
                if not course.includes(pair.key) or (pair.there_bytes is not None and not self._options.verify):
                    continue
                if is_manifest(pair.key):
                    for _ in range(limit):
                        await room.acquire()
                    for _ in range(limit):
                        room.release()
                await room.acquire()
                group.create_task(self._step(pair, room))

    async def _step(self, pair: Pair, room: asyncio.Semaphore) -> None:
        try:
            if pair.there_bytes is None and not await self._send(pair.key, pair.here_bytes):
                return
            if self._options.verify:
                await self._verify(pair)
        finally:
            room.release()

    async def _send(self, key: str, size_bytes: int) -> bool:
        """Send an object; return False when it is gone, or of no use to anybody."""
        try:
            await self._sender.send(key, size_bytes)
        except ObjectMissing:
            self._done.vanished += 1
            return False
        except Damaged:
            self._note_damaged(key)
            return False
        self._done.sent += 1
        self._done.sent_bytes += size_bytes
        self._progress.advanced(size_bytes)
        return True

    async def _verify(self, pair: Pair) -> None:
        if await self._sender.is_same(pair.key, pair.here_bytes):
            self._done.verified += 1
        else:
            self._note_damaged(pair.key)

    def _note_damaged(self, key: str) -> None:
        if key not in self._done.damaged:
            self._done.damaged.append(key)

    async def _look_again(self, course: Course) -> int:
        """Return how many bytes of what was listed the destination does not list, though it took them."""
        lost = 0
        async for pair in pairs(self._source.stored, self._destination.stored):
            if pair.there_bytes != pair.here_bytes and course.includes(pair.key) and pair.key not in self._done.damaged:
                lost += pair.here_bytes
        return lost
