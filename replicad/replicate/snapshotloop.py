"""When to take a snapshot: when one is owed, asked for, or due; and what to do when it fails."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.errors import ProofFailed, ReplicadError
from replicad.observe import events
from replicad.plan.snapshot import NO_SNAPSHOT, LogSince, SnapshotLimits, SnapshotSize, due
from replicad.position import TXID
from replicad.replicate.following import record_state, wait_for
from replicad.replicate.ledger import Mark
from replicad.replicate.pinned import Pinned, StateMoved
from replicad.wal import FRAME_HEADER_BYTES

if TYPE_CHECKING:
    from replicad.replicate.following import Following, Turn
    from replicad.snapshot import Manifest
    from replicad.sqlite.source import Index

_RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Owed:
    """A snapshot that must be stored before any segment is: of the state from which reading begins."""

    reason: str
    index: Index  # of exactly that state


class SnapshotLoop:
    """Takes the snapshots of one session."""

    def __init__(self, following: Following, turn: Turn, *, log: LogSince, owed: Owed | None) -> None:
        """`log` is what was stored since the newest snapshot."""
        self.base = asyncio.Event()  # segments have a snapshot to rest on
        self.disproven = asyncio.Event()  # the database is not what the page table says
        if owed is None:
            self.base.set()
        self._following = following
        self._turn = turn
        self._owed = owed
        self._wanted = owed.reason if owed else None
        self._segments, self._stored_bytes = log.segments, log.stored_bytes
        self._newest_size = _size(following.snapshots.newest)  # kept: it is looked at with each segment
        self._since = following.tools.clock.monotonic() - log.seconds
        self._changed = asyncio.Event()
        self._beginning: Pinned | None = None
        self.let_go = asyncio.Event()  # the pin is wanted back: see Pins
        self.holds_pin = False
        self._pinned_at_bytes = 0  # size of the WAL when the pin of the snapshot being taken was taken
        self._taking: asyncio.Task[Manifest] | None = None
        self._waiting: asyncio.Future[Manifest] | None = None

    def shipped(self, stored_bytes: int) -> None:
        """Count a segment: it may make a snapshot due."""
        self._segments += 1
        self._stored_bytes += stored_bytes
        self._changed.set()

    async def take_now(self, reason: str) -> Manifest:
        """Take a snapshot of the present state; return its manifest once it is stored."""
        if self._waiting is None:
            self._waiting = asyncio.get_running_loop().create_future()
        self._wanted = self._wanted or reason
        self._changed.set()
        return await asyncio.shield(self._waiting)

    def watch_wal(self, wal_bytes: int) -> None:
        """Have the snapshot being taken hold a newer state, when its pin has made the WAL grow by the limit."""
        since = self._pinned_at_bytes if wal_bytes >= self._pinned_at_bytes else 0  # smaller: it began again
        if wal_bytes - since > self._following.settings.max_wal_bytes:
            self.pin_again()

    def abandon(self, error: str) -> None:
        """End the session, before any segment of it was sent: the next one begins with the state there is then."""
        self._following.log.error(events.SNAPSHOT_FAILED, reason=self._wanted, error=error)
        self.disproven.set()

    @property
    def borrows_pin(self) -> bool:
        """Whether the capture's own pin holds the state that a snapshot is taken of: it must not move."""
        return self._beginning is not None

    def pin_again(self) -> None:
        """Have the snapshot being taken, if any, go on under a new pin, as soon as the chunk at hand is read."""
        self.let_go.set()

    async def pin_beginning(self) -> None:
        """Hold the state still that a snapshot is owed of; called before anything is read."""
        if self._owed is not None:
            self._beginning = await self._turn.take(self._turn.capture.pin_beginning, self._owed.index)

    async def run(self) -> None:
        """Take snapshots until cancelled."""
        while True:
            reason = self._wanted or self._due()
            if reason is None:
                self._changed.clear()
                await wait_for(self._changed, self._following.settings.snapshot_interval_seconds)
                continue
            self._taking = asyncio.ensure_future(self._take(reason))
            try:
                await asyncio.wait((self._taking,))
            finally:
                self._taking.cancel()
                await asyncio.wait((self._taking,))
            taken, self._taking = self._taking, None
            if await self._note(taken, reason):
                continue
            if not self.base.is_set():
                # Nothing is sent before this snapshot, so reading gets stuck and another state cannot be held still
                # here. The next session begins with a new one; the chunks that are stored need not be sent again.
                self.disproven.set()
            await asyncio.sleep(_RETRY_SECONDS)

    async def take(self) -> Pinned:
        """Hold a state still, as Pins wants it.

        Raises:
            StateMoved: writers would not pause for it.
        """
        pinned = self._beginning
        if pinned is None:
            async with self._turn.while_reading():
                self.let_go.clear()
                pinned = await self._turn.within(self._turn.capture.pin_state, skip=not self.base.is_set())
        if pinned is None:
            raise StateMoved
        self.holds_pin = True
        self._pinned_at_bytes = pinned.position.frame * (pinned.table.page_size + FRAME_HEADER_BYTES)
        return pinned

    async def release(self, pinned: Pinned) -> None:
        """Let it go, as Pins wants it."""
        try:
            await self._turn.take(pinned.release)
        finally:
            self.holds_pin = False
            self._beginning = None

    async def _take(self, reason: str) -> Manifest:
        following = self._following
        now_ms = following.tools.clock.now_ms()
        manifest, pinned = await following.snapshots.store(self, reason=reason, now_ms=now_ms)
        if not self.base.is_set():  # until the first segment, this is all that a restart can go by
            await record_state(following, manifest.position, pinned.position)
        return manifest

    async def _note(self, taken: asyncio.Task[Manifest], reason: str) -> bool:
        """Take note of how it ended; return False when it is to be tried again."""
        following = self._following
        error = taken.exception()
        if isinstance(error, ProofFailed):
            following.metrics.errors[type(error).__name__] += 1
            following.log.error(events.SNAPSHOT_FAILED, reason=reason, error=str(error))
            self.disproven.set()
            return False
        if isinstance(error, StateMoved):
            return False
        if isinstance(error, ReplicadError):
            following.metrics.errors[type(error).__name__] += 1
            following.log.error(events.SNAPSHOT_FAILED, reason=reason, error=str(error))
            return False
        manifest = taken.result()
        self._wanted = None
        self._segments = self._stored_bytes = 0
        self._newest_size = _size(manifest)
        self._since = following.tools.clock.monotonic()
        await self._publish(manifest, reason)
        return True

    async def _publish(self, manifest: Manifest, reason: str) -> None:
        following, metrics = self._following, self._following.metrics
        metrics.snapshot_txid, metrics.snapshot_ms = manifest.txid, manifest.commit_ms
        metrics.snapshot_stored_bytes = manifest.stored_bytes
        metrics.first_restorable_ms = metrics.first_restorable_ms or manifest.commit_ms
        following.log.info(
            events.SNAPSHOT_STORED, reason=reason, txid=manifest.txid, stored_bytes=manifest.stored_bytes
        )
        if not self.base.is_set():
            self.base.set()
            await following.ledger.now_durable(Mark(txid=TXID(manifest.txid), ms=manifest.commit_ms))
        if self._waiting is not None:
            self._waiting.set_result(manifest)
            self._waiting = None

    def _due(self) -> str | None:
        settings = self._following.settings
        log = LogSince(
            segments=self._segments,
            stored_bytes=self._stored_bytes,
            seconds=self._following.tools.clock.monotonic() - self._since,
        )
        limits = SnapshotLimits(
            interval_seconds=settings.snapshot_interval_seconds, log_ratio=settings.snapshot_log_ratio
        )
        written = len(self._turn.capture.written)
        return due(log, newest=self._newest_size, written_extents=written, limits=limits)


def _size(manifest: Manifest | None) -> SnapshotSize:
    if manifest is None:
        return NO_SNAPSHOT
    return SnapshotSize(
        stored_bytes=manifest.stored_bytes,
        image_bytes=manifest.image_bytes,
        chunk_bytes=manifest.chunk_pages * manifest.page_size,
    )
