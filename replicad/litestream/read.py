"""From a replica that Litestream wrote to a database file with its newest state.

Whatever the format offers for a check is checked, and an LTX file that fails is led around when others hold the same
transactions. An older state than the newest is never given in its place.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from replicad.errors import Damaged, HistoryGap, NoBackup, ObjectMissing, UsageError
from replicad.host.files import remove
from replicad.host.threads import Threads
from replicad.litestream.apply_ltx import LTXApplier
from replicad.litestream.apply_wal import WALApplier
from replicad.litestream.codecs import Codecs
from replicad.litestream.generations import read_generations
from replicad.litestream.plan import plan_newest, read_ltx_listing
from replicad.litestream.spool import Spool
from replicad.litestream.stream import in_blocks
from replicad.observe import events
from replicad.observe.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from replicad.litestream.generations import Generation
    from replicad.litestream.plan import LTXFile
    from replicad.restore.progress import Progress
    from replicad.store.protocol import ObjectStore

_LOOKS = 4  # at a replica whose files are compacted, and deleted, while they are read
_SHADOW = "-litestream/"  # of the folder that Litestream keeps beside a database
_log = get_logger()


class _File(Protocol):
    @property
    def key(self) -> str: ...
    @property
    def size_bytes(self) -> int: ...


F = TypeVar("F", bound=_File)
Taken_contra = TypeVar("Taken_contra", contravariant=True)


class _Applier(Protocol[Taken_contra]):
    def begin(self, file: Taken_contra) -> None: ...
    def feed(self, file: Taken_contra, data: bytes) -> None: ...
    def end(self, file: Taken_contra) -> None: ...
    def finish(self, file: Taken_contra) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """A state of a Litestream replica, put together in a file."""

    committed_ms: int  # Unix ms, UTC: when Litestream wrote it
    version: str  # of the layout: "0.5" or "0.3"
    position: str  # as Litestream names it
    files: int
    fetched_bytes: int
    unusable: tuple[str, ...] = ()  # damaged or gone, and led around


async def read_newest(store: ObjectStore, path: Path, progress: Progress) -> Imported:
    """Put the newest state of the replica in `store` together in a new file at `path`.

    Args:
        store: the folder or bucket with prefix that Litestream was given as the replica's path; it is only read.
        path: where the file is made; nothing stands there.
        progress: is told of the stored bytes that were read.

    Raises:
        UsageError: the packages of `replicad[litestream]` are not there, or the URL names a folder above replicas.
        NoBackup: there is no replica.
        HistoryGap: its files do not lead to its newest state.
        Damaged: a file that is needed is damaged; which one, and where.
        ObjectMissing: a file that is needed is gone, again and again.
        NoSpace, FileUnusable: the file cannot be made here.
        StoreUnreachable, StoreRefused: the store cannot be read.
    """
    reading = _Reading(store, path, progress, Codecs())
    try:
        imported = await reading.run()
    finally:
        progress.finished()
        await reading.threads.close()
    _log.info(
        events.LITESTREAM_READ,
        version=imported.version,
        position=imported.position,
        files=imported.files,
        fetched_bytes=imported.fetched_bytes,
    )
    return imported


class _Reading:
    def __init__(self, store: ObjectStore, path: Path, progress: Progress, codecs: Codecs) -> None:
        self.threads = Threads("litestream", 1)
        self._store = store
        self._path = path
        self._progress = progress
        self._codecs = codecs
        self._fetched_bytes = 0
        self._unusable: dict[str, Damaged | ObjectMissing] = {}  # by key: why
        self._at = ""  # the key of the file at hand

    async def run(self) -> Imported:
        files, generation = await self._look()
        if generation is not None:
            return await self._read_generation(generation)
        wanted = max(file.last for file in files)  # no later look may end in less
        looks = 1
        while True:
            way = self._plan(files, wanted)
            try:
                return await self._read_ltx(way)
            except ObjectMissing as error:  # perhaps it was compacted into another one
                if looks == _LOOKS:
                    raise
                looks += 1
                self._note(error)
                files, _ = await self._look()
            except Damaged as error:
                self._note(error)

    def _note(self, error: Damaged | ObjectMissing) -> None:
        if self._at in self._unusable:
            raise error
        self._unusable[self._at] = error
        _log.warning(events.OBJECT_UNUSABLE, key=self._at, error=str(error))

    async def _look(self) -> tuple[list[LTXFile], Generation | None]:
        """Return what is stored in the layout that was written last: files of 0.5, or a generation of 0.3."""
        objects = [found async for found in self._store.list("")]
        files, elsewhere = read_ltx_listing(objects)
        generations, others = read_generations(objects)
        newest = max(generations, key=lambda one: one.written_ms, default=None)
        if not files and newest is None:
            below = sorted(one for one in elsewhere | others if not one.endswith(_SHADOW))
            if not below:
                raise NoBackup(database="a database of Litestream's", store=self._store.url)
            raise UsageError(
                where="--from-litestream",
                expected="the URL of one replica",
                found=f"{self._store.url}, which stands above {', '.join(below[:5])}",
                hint="Add one of them to the URL.",
            )
        if newest is not None and newest.written_ms > max((file.written_ms for file in files), default=0):
            return [], newest
        return files, None

    def _plan(self, files: list[LTXFile], wanted: int) -> list[LTXFile]:
        """Return a way to the newest state around what cannot be used.

        Raises:
            HistoryGap: there is none.
            Damaged, ObjectMissing: there is none because of this one.
        """
        culprit = next(iter(self._unusable.values()), None)
        try:
            way = plan_newest(files, label=self._store.url, without=self._unusable.keys())
        except (NoBackup, HistoryGap):
            if culprit is None:
                raise
            raise culprit from None
        if way[-1].last < wanted and culprit is not None:
            raise culprit
        return way

    async def _read_ltx(self, way: list[LTXFile]) -> Imported:
        spool = await self.threads.run(self._begin)
        try:
            applier = LTXApplier(self._codecs, spool)
            await self._apply(way, applier)
        finally:
            await self.threads.run(spool.close)
        return Imported(
            committed_ms=applier.committed_ms,
            version="0.5",
            position=f"transaction {way[-1].last}",
            files=len(way),
            fetched_bytes=self._fetched_bytes,
            unusable=tuple(sorted(self._unusable)),
        )

    async def _read_generation(self, generation: Generation) -> Imported:
        way = generation.newest(label=self._store.url)
        spool = await self.threads.run(self._begin)
        try:
            await self._apply(way, WALApplier(self._codecs, spool))
        finally:
            await self.threads.run(spool.close)
        last = way[-1]
        return Imported(
            committed_ms=last.written_ms,
            version="0.3",
            position=f"generation {generation.id}, WAL {last.index:08x}",
            files=len(way),
            fetched_bytes=self._fetched_bytes,
        )

    def _begin(self) -> Spool:
        remove(self._path)  # what an earlier attempt put together
        return Spool(self._path)

    async def _apply(self, way: Sequence[F], applier: _Applier[F]) -> None:
        """Apply the files in turn, each to its end; the file that something is wrong with is the one at hand."""
        run = self.threads.run
        self._progress.started(sum(file.size_bytes for file in way))
        by_key = {file.key: file for file in way}
        before: F | None = None
        self._at = way[0].key
        async with aclosing(in_blocks(self._store, [(file.key, file.size_bytes) for file in way])) as blocks:
            async for key, fetching in blocks:
                file = by_key[key]
                if before is None or key != before.key:
                    if before is not None:
                        await run(applier.end, before)
                    self._at, before = key, file
                    await run(applier.begin, file)
                block = await fetching
                await run(applier.feed, file, block)
                self._fetched_bytes += len(block)
                self._progress.advanced(len(block))
        if before is not None:
            await run(applier.end, before)
            await run(applier.finish, before)
