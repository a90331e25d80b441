"""The snapshot of a plan: pages that no segment has settled, by way of the chunks that hold them.

Chunks also hold pages that segments refer to, whoever settles these. A chunk with neither is not fetched, one that
stands in the old file is taken from there, and one that occurs several times is fetched once.

Whether a fetched chunk has the content that it is named for is not looked at, at first: the checksum over all pages
will tell whether everything has, and costs a quarter of what SHA-256 does (0.2 s a GiB against 0.75). Only when it
tells of damage are the names compared, in another attempt, to find out where.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from replicad import zstd
from replicad.restore.faults import suspected
from replicad.snapshot import decompress_chunk
from replicad.store.into import Rooms

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from replicad.errors import ReplicadError
    from replicad.restore.old_file import OldFile
    from replicad.restore.older import Version
    from replicad.restore.preparation import Preparation
    from replicad.restore.workshop import Workshop
    from replicad.snapshot import Chunk
    from replicad.store.into import Held

_ARRIVING = 3  # chunks that have room to come, beside those that are unpacked
_GLANCE_BYTES = 64  # enough to see that most chunks are not zeros


class Chunks:
    """The chunks of one attempt.

    Args:
        workshop: what the parts of the attempt share.
        prepared: the plan, and its manifest, which is at fault when a chunk is.
        old: the file at the target, which may lend some.
        unusable: chunks that are known to be damaged or gone, by their key.
        verify: whether the content of each chunk is compared with its name.
    """

    def __init__(
        self,
        workshop: Workshop,
        prepared: Preparation,
        *,
        old: OldFile,
        unusable: Mapping[str, ReplicadError],
        verify: bool,
    ) -> None:
        self.reused_bytes = 0
        self._workshop = workshop
        self._answers: dict[int, list[tuple[int, Version]]] = {}  # (page number, version) by number of the chunk
        self._stored = prepared.plan.manifest
        self._manifest = prepared.manifest
        self._old = old
        self._unusable = unusable
        self._verify = verify
        # what is being unpacked is not on its way any more
        self._turns = asyncio.Semaphore(workshop.fetch.concurrency + workshop.fetch.threads.size)
        self._chunk_bytes = self._manifest.chunk_pages * self._manifest.page_size
        room_bytes = max((chunk.stored_bytes for chunk in self._manifest.chunks), default=0)
        self._rooms = Rooms(room_bytes, workshop.fetch.threads.size + _ARRIVING)

    async def apply(self, group: asyncio.TaskGroup) -> None:
        """Settle the pages that are left; what is still being written when this returns is in the group.

        Raises:
            ReplicadError: the store or the disk failed. Chunks that cannot be used fail the group (`Unusable`).
        """
        work = self._workshop.work
        wanted = self._workshop.wanted
        wanted.cut(self._manifest.pages)
        for pgno, version in wanted.pages.items():
            self._answers.setdefault((pgno - 1) // self._manifest.chunk_pages, []).append((pgno, version))
        for chunk, numbers in self._needed().items():
            await self._turns.acquire()
            taken_bytes = await work.take(chunk.stored_bytes + chunk.raw_bytes)
            group.create_task(self._settle(chunk, numbers, taken_bytes))

    def _needed(self) -> dict[Chunk, list[int]]:
        """Return the chunks that hold unsettled pages, each with the numbers of its places in the image."""
        needed: dict[Chunk, list[int]] = {}
        settled, pages = self._workshop.settled, self._manifest.chunk_pages
        for number, chunk in enumerate(self._manifest.chunks):
            if number not in self._answers and next(settled.runs(number * pages, pages), None) is None:
                self._workshop.progress.advanced(chunk.stored_bytes)
            else:
                needed.setdefault(chunk, []).append(number)
        return needed

    async def _settle(self, chunk: Chunk, numbers: list[int], taken_bytes: int) -> None:
        workshop = self._workshop
        if self._old.lends and await workshop.fetch.threads.run(self._reuse, chunk, numbers):
            self.reused_bytes += chunk.raw_bytes * len(numbers)
        else:
            await self._fetch(chunk, numbers)
        workshop.work.give_back(taken_bytes)
        self._turns.release()
        workshop.progress.advanced(chunk.stored_bytes * len(numbers))

    async def _fetch(self, chunk: Chunk, numbers: list[int]) -> None:
        with suspected(self._stored.name, chunk=chunk.key):
            if chunk.key in self._unusable:  # found out by an earlier attempt
                raise self._unusable[chunk.key]
            await self._workshop.fetch.proven_in(self._rooms, chunk.key, partial(self._unpack, chunk, numbers))

    def _reuse(self, chunk: Chunk, numbers: list[int]) -> bool:
        raw = self._old.chunk(chunk.name, chunk.raw_bytes, (number * self._chunk_bytes for number in numbers))
        if raw is not None:
            self._write(memoryview(raw), numbers)
        return raw is not None

    def _unpack(self, chunk: Chunk, numbers: list[int], stored: Held) -> None:
        if self._verify:
            raw = decompress_chunk(
                stored.body, raw_bytes=chunk.raw_bytes, name=chunk.name, what=chunk.key, names=self._old.names
            )
            self._write(memoryview(raw), numbers)
            return
        buffer = self._workshop.room(chunk.raw_bytes)
        zstd.decompress_into(buffer, stored.body, what=chunk.key, where="zstd frame")
        stored.let_go()  # the next chunk needs its room while this one is written
        self._write(buffer, numbers)

    def _write(self, raw: memoryview, numbers: list[int]) -> None:
        """Write the unsettled pages of a chunk to its places in the image, and read them back. Runs in a thread."""
        self._answer(raw, numbers)
        if _is_zeros(raw):
            return  # the file is made of zeros already: a hole costs neither time nor room
        pages = self._manifest.chunk_pages
        if len(numbers) == 1 and self._write_whole(numbers[0] * pages, raw):
            return
        for number in numbers:
            first = number * pages
            runs = list(self._workshop.settled.runs(first, pages))
            self._workshop.image.write_runs(first, raw, runs)
            whole = self._workshop.proof.take(first, pages, runs)
            self._workshop.image.finished([(first, pages)] if whole else runs)

    def _write_whole(self, first: int, raw: memoryview) -> bool:
        """Write a chunk in one go, with the pages that segments have settled put in between; False: not this one.

        Those that are settled, and neither in their place nor kept aside yet, may be written at any moment, and must
        not be written over.
        """
        workshop, size = self._workshop, self._manifest.page_size
        image, proof, settled, overlay = workshop.image, workshop.proof, workshop.settled, workshop.overlay
        stop = first + len(raw) // size
        if not image.is_direct or raw.readonly or stop > settled.bound:
            return False
        kept: dict[int, int] = {}
        begin = first
        for end, count in (*settled.runs(first, stop - first), (stop, 0)):
            aside = overlay.find(range(begin, end))
            kept |= aside
            for index, n in _without(begin, end, aside):
                if proof.are_later(index, n):
                    continue  # then they may be anything now
                if not proof.are_written(index, n):
                    return False
                image.read(index * size, raw[(index - first) * size : (index - first + n) * size])
            begin = end + count
        overlay.read(kept, first, raw)
        if not image.write_whole(first, raw):
            return False
        overlay.drop(kept)
        proof.take_whole(first, raw)
        return True

    def _answer(self, raw: memoryview, numbers: list[int]) -> None:
        size = self._manifest.page_size
        for number in numbers:
            for pgno, version in self._answers.get(number, ()):
                at = (pgno - 1) * size - number * self._chunk_bytes
                self._workshop.shelf.put(version, raw[at : at + size])


def _without(begin: int, end: int, left_out: Mapping[int, int]) -> Iterator[tuple[int, int]]:
    """Return (index, count) of the pages in a row, from index `begin` to `end`, that are not left out."""
    for index in (*sorted(left_out), end):
        if begin < index:
            yield begin, index - begin
        begin = index + 1


def _is_zeros(raw: memoryview) -> bool:
    return not any(raw[:_GLANCE_BYTES]) and raw == bytes(len(raw))
