"""Restore a database: plan, fetch, put together, prove, put in place.

Nothing at the target changes before the new file is proven; whatever goes wrong, what stood there stands, and
nothing else is left.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog

from replicad.errors import ProofFailed, ReplicadError
from replicad.host.allocator import give_back_free_memory
from replicad.host.clock import SystemClock
from replicad.host.interruptible import interruptible
from replicad.host.threads import Threads
from replicad.observe import events
from replicad.restore.chain import Chain
from replicad.restore.chunks import Chunks
from replicad.restore.faults import Unusable
from replicad.restore.fetch import Fetch
from replicad.restore.forward import HELD_SHARE, Forward, add_all
from replicad.restore.image import Image
from replicad.restore.old_file import OldFile
from replicad.restore.place import Place, resolve_target
from replicad.restore.planning import Planner, prepare_around
from replicad.restore.progress import Silent
from replicad.restore.prove import Proof, ask_sqlite
from replicad.restore.referring import Referring
from replicad.restore.request import Integrity, Restored
from replicad.restore.standing import Standing
from replicad.restore.together import task_group
from replicad.restore.workshop import AHEAD_SHARE, Workshop
from replicad.store.database import chunk_names
from replicad.wal.pagetable import no_hashes

if TYPE_CHECKING:
    from pathlib import Path

    from replicad.host.clock import Clock
    from replicad.restore.preparation import Preparation
    from replicad.restore.progress import Progress
    from replicad.restore.request import Estimate, Evidence, RestoreRequest
    from replicad.store.protocol import ObjectStore

_log = structlog.get_logger(__name__)


async def restore(
    store: ObjectStore, request: RestoreRequest, progress: Progress | None = None, clock: Clock | None = None
) -> Restored:
    """Restore the database below the store's prefix to `request.target`, at `request.path`.

    No connection of any process may be open on the file at the target.

    Args:
        store: the database's own part of the store.
        request: what is restored, where to, and how.
        progress: is told how far it is; None: nobody is.
        clock: the machine's when None.

    Raises:
        TargetExists: the target is there, and `force` is not set; nothing was fetched.
        TargetBusy: the target is being restored to, or is open.
        NoBackup: nothing was ever stored.
        TargetOutsideWindow: the target lies outside of what can be restored.
        HistoryGap: what was committed at the target cannot be restored; an object may be damaged or missing.
        UsageError: the epoch asked for never started.
        Damaged: the starts of the epochs contradict one another.
        NewerFormat: an object was written by a later replicad.
        ProofFailed: the file is not what the source was, or SQLite finds fault with it; it is not put in place.
        NoSpace: the disk is full.
        FileUnusable: the target's folder cannot be used.
        StoreUnreachable, StoreRefused, WrongKey: the store cannot be read.
    """
    threads = Threads("restore", request.limits.threads)
    progress = progress or Silent()
    try:
        return await _Restore(store, request, progress, clock or SystemClock(), threads).run()
    except ReplicadError as error:
        _log.error(events.RESTORE_FAILED, path=str(request.path), target=str(request.target), error=str(error))
        raise
    finally:
        progress.finished()
        await threads.close()


async def estimate(store: ObjectStore, request: RestoreRequest) -> Estimate:
    """Return what `restore` would do: the way is found, the manifest and an index or two are read, nothing is written.

    Raises:
        ReplicadError: as `restore`, as far as it can be known by now.
    """
    threads = Threads("restore", request.limits.threads)
    try:
        fetch = Fetch(store, threads, concurrency=request.limits.concurrency)
        planner = Planner(store, fetch, request.target, request.epoch, request.listed)
        prepared = await prepare_around(fetch, planner, await planner.first())
        return prepared.estimate(request.target)
    finally:
        await threads.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Built:
    """A proven, synced file that is not in place yet."""

    prepared: Preparation
    reused_bytes: int
    image: Image | None  # under its temporary name; None: the file at the target itself
    evidence: Evidence | None


class _Restore:
    """One restore from beginning to end.

    What has to be closed is made before it is opened: a caller who is cancelled while a thread opens something
    would not learn of it.
    """

    def __init__(
        self, store: ObjectStore, request: RestoreRequest, progress: Progress, clock: Clock, threads: Threads
    ) -> None:
        self._request = request
        self._progress = progress
        self._clock = clock
        self._threads = threads
        self._store = store
        self._fetch = Fetch(store, threads, concurrency=request.limits.concurrency)
        self._planner = Planner(store, self._fetch, request.target, request.epoch, request.listed)
        self._verify = False  # whether chunks are compared with their names before the whole is proven
        self._to_close: list[OldFile | Image | Standing] = []

    async def run(self) -> Restored:
        began = self._clock.monotonic()
        target = await self._threads.run(resolve_target, self._request.path, force=self._request.force)
        request = self._request
        place = Place(target)
        standing = Standing(target, evidence=request.standing, keep_hashes=request.evidence)
        self._to_close.append(standing)
        try:
            forward = await self._threads.run(self._forward, place, standing)
            prepared, stands = await self._prepare_beside(standing, forward)
            _log.info(events.RESTORE_STARTED, path=str(target), **prepared.described())
            await self._threads.run(place.take)
            built = await self._go_forward(standing, forward, prepared) if forward and stands else None
            if built is None:
                await self._threads.run(standing.close)
                forward = None  # with the segments that it has opened
                built = await self._build_beside(place, prepared)
            moved = await self._threads.run(self._put, place, standing, built)
        finally:
            try:
                await self._threads.run(self._clean_up, place)
            finally:
                await self._fetch.forget()
        restored = self._answer(target, built, moved, self._clock.monotonic() - began)
        _log.info(
            events.RESTORED,
            path=str(target),
            **built.prepared.described(),
            fetched_bytes=restored.fetched_bytes,
            reused_bytes=restored.reused_bytes,
            in_place=restored.in_place,
            seconds=round(restored.seconds, 3),
        )
        return restored

    def _forward(self, place: Place, standing: Standing) -> Forward | None:
        """Take what stands at the target, when it may be changed where it stands."""
        request = self._request
        if not place.target.exists():
            return None
        place.take()
        if request.keep_replaced or not standing.open():
            return None
        return Forward(standing, self._fetch, place, self._progress, memory_bytes=request.limits.memory_bytes)

    async def _prepare_beside(self, standing: Standing, forward: Forward | None) -> tuple[Preparation, bool]:
        """Plan, and read meanwhile what stands at the target; return whether it could be read."""
        if forward is None:
            return await self._prepare(AHEAD_SHARE), False
        async with task_group() as group:
            adding = group.create_task(add_all(standing, self._threads))
            prepared = await self._prepare(HELD_SHARE)
            with suppress(Unusable):  # found again, told of and led around by the restore beside it
                await forward.look_ahead(prepared)
        return prepared, adding.result()

    async def _prepare(self, share: int) -> Preparation:
        """Plan and prepare; of the memory, foresee as large a share as the segments that are opened first have."""
        plan = await self._planner.first(foreseen_bytes=self._request.limits.memory_bytes // share)
        return await prepare_around(self._fetch, self._planner, plan)

    async def _go_forward(self, standing: Standing, forward: Forward, prepared: Preparation) -> _Built | None:
        """Make the file at the target the one that is wanted, when it is an earlier state of it."""
        try:
            changed = await forward.run(prepared)
        except Unusable:
            return None  # likewise
        if changed is None:
            return None
        await self._ask_sqlite(standing.path)
        return _Built(prepared=prepared, reused_bytes=changed.kept_bytes, image=None, evidence=changed.evidence)

    def _put(self, place: Place, standing: Standing, built: _Built) -> tuple[Path, ...]:
        """Put the file in place, with no descriptor of ours left on it. Runs in a thread."""
        now_ms = self._clock.now_ms()
        if built.image is None:
            return place.keep(standing.commit, now_ms=now_ms)
        self._close_all()
        return place.put(built.image.path, keep_replaced=self._request.keep_replaced, now_ms=now_ms)

    def _clean_up(self, place: Place) -> None:
        try:
            self._close_all()
        finally:
            place.release()

    def _close_all(self) -> None:
        while self._to_close:
            self._to_close.pop().close()

    async def _build_beside(self, place: Place, prepared: Preparation) -> _Built:
        """Put the database together beside the target, by as many plans as it takes."""
        old = OldFile(place.target, await chunk_names(self._store))
        self._to_close.append(old)
        await self._threads.run(old.open)
        while True:
            image = Image(place.temporary(), size_bytes=prepared.database_bytes, page_size=prepared.manifest.page_size)
            self._to_close.append(image)
            try:
                return await self._build(image, prepared, old)
            except Unusable as fault:
                await self._threads.run(image.remove)
                if fault.unproven and not self._verify:
                    self._verify = True  # the same again, to find out where the damage is
                    await self._threads.run(old.close)
                    continue
                plan = await self._planner.another(prepared.plan.txid, fault)
                prepared = await prepare_around(self._fetch, self._planner, plan)

    async def _build(self, image: Image, prepared: Preparation, old: OldFile) -> _Built:
        """Put the database together by one plan, prove it and sync it."""
        await self._threads.run(image.create)
        proof = Proof(image, hashes=no_hashes(image.pages) if self._request.evidence else None)
        reused_bytes = await self._assemble(image, proof, prepared, old)
        await self._threads.run(image.take_over, old.path)
        async with task_group() as group:  # hashing keeps a core busy while the disk is
            checksum = group.create_task(interruptible(self._threads, proof.finish))
            group.create_task(self._threads.run(image.sync))
            group.create_task(interruptible(self._threads, image.check_ends))
        _compare(image, prepared, checksum.result())
        await self._ask_sqlite(image.path)
        evidence = await self._threads.run(proof.evidence)
        return _Built(image=image, prepared=prepared, reused_bytes=reused_bytes, evidence=evidence)

    async def _ask_sqlite(self, path: Path) -> None:
        if self._request.integrity is not Integrity.NONE:
            await interruptible(self._threads, partial(ask_sqlite, path, self._request.integrity))

    async def _assemble(self, image: Image, proof: Proof, prepared: Preparation, old: OldFile) -> int:
        """Write every page once; return how many bytes came from the old file."""
        self._progress.started(prepared.total_bytes)
        memory_bytes = self._request.limits.memory_bytes
        workshop = Workshop(self._fetch, image, proof, self._progress, memory_bytes=memory_bytes)
        database_id = prepared.plan.line.database_id
        referring = Referring(workshop, database_id=database_id, memory_bytes=memory_bytes)
        chain = Chain(workshop, prepared, referring)
        unusable = self._planner.unusable_chunks
        chunks = Chunks(workshop, prepared, old=old, unusable=unusable, verify=self._verify)
        try:
            async with task_group() as group:
                await chain.apply(group)
                if prepared.plan.segments:
                    await self._threads.run(give_back_free_memory)
                await chunks.apply(group)
            await self._threads.run(workshop.lay_down)
            await referring.unpack(prepared.plan.manifest.name)
        finally:
            await self._threads.run(workshop.close)
        return chunks.reused_bytes

    def _answer(self, target: Path, built: _Built, moved: tuple[Path, ...], seconds: float) -> Restored:
        prepared, position = built.prepared, built.prepared.position
        return Restored(
            path=target,
            database_id=prepared.manifest.database_id,
            epoch=position.epoch,
            head=prepared.plan.line.head,
            txid=position.txid,
            commit_ms=prepared.commit_ms,
            checksum=position.checksum,
            pages=position.pages,
            page_size=prepared.manifest.page_size,
            manifest=prepared.manifest,
            manifest_key=prepared.plan.manifest.name,
            segments=len(prepared.plan.segments),
            fetched_bytes=self._fetch.fetched_bytes,
            reused_bytes=built.reused_bytes,
            requests=self._fetch.requests,
            seconds=seconds,
            moved_aside=moved,
            unusable=(*sorted(self._planner.unusable), *sorted(self._planner.unusable_chunks)),
            in_place=built.image is None,
            evidence=built.evidence,
        )


def _compare(image: Image, prepared: Preparation, checksum: int) -> None:
    expected = prepared.position.checksum
    if checksum != expected:
        error = ProofFailed(
            what=image.path, check="checksum of the state", expected=f"{expected:016x}", found=f"{checksum:016x}"
        )
        raise Unusable(error, prepared.plan.manifest.name) from error
