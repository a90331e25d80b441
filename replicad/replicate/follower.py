"""Following one database while the process runs: open it, hold a session, open it again when it is replaced."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from replicad.errors import DatabaseUnusable, FileUnusable, ReplicadError, TargetBusy
from replicad.host.race import race
from replicad.observe import events
from replicad.plan.checkpoint import CheckpointLimits
from replicad.plan.snapshot import LogSince
from replicad.position import TXID, Position
from replicad.replicate.beat import Beat
from replicad.replicate.capture import Capture
from replicad.replicate.compare import ComparingBeat, ComparingCapture
from replicad.replicate.continuity import Continuity, Known
from replicad.replicate.drill import Drill
from replicad.replicate.duties import do_all
from replicad.replicate.following import record_state
from replicad.replicate.keeper import Keeper
from replicad.replicate.lagbound import LagBound
from replicad.replicate.ledger import Mark
from replicad.replicate.mirroring import MirrorDuty
from replicad.replicate.opener import RETRY_SECONDS, Opener
from replicad.replicate.own import store_end
from replicad.replicate.reading import Beginning, CaptureLimits
from replicad.replicate.rollup import RollingUp
from replicad.replicate.session import Session
from replicad.replicate.snapshotloop import Owed
from replicad.segment import SegmentHeader
from replicad.sqlite.companions import leave_tidy, set_wal_aside
from replicad.sqlite.versions import is_vulnerable, version_text

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from replicad.host.files import FileIdentity
    from replicad.replicate.continuity import Opening
    from replicad.replicate.duties import Duty
    from replicad.replicate.following import Following
    from replicad.replicate.opened import Opened, Stored
    from replicad.snapshot import Manifest
    from replicad.sqlite.source import Source
    from replicad.store.protocol import ObjectStore
    from replicad.wal import PageTable

T = TypeVar("T")


class Follower:
    """Follows one database. `run` ends only by cancellation."""

    def __init__(self, following: Following, store: ObjectStore, stored: Stored, *, opened: Opened | None) -> None:
        """`opened` is the database as boot opened it, None when it does not exist yet."""
        self.following = following
        self._store = store
        self._known = list(stored.known)
        self._log_since = stored.log
        self._last_txid = stored.known[0].position.txid if stored.known else TXID(0)
        self._last_ms = stored.known[0].ms if stored.known else 0
        self._table: PageTable | None = None  # of the state that was read last, by an earlier session
        self._session: Session | None = None
        self._capture: Capture | None = None
        self._in_session = asyncio.Event()
        self._frozen: set[str] = set()  # why writers are kept out
        self._settled = asyncio.Event()  # there is a session, or no database to have one of
        self._opener = Opener(following, opened=opened, absent=self._settled)
        self.drill = Drill(following, self.snapshot)
        following.ledger.begin(Mark(txid=self._last_txid, ms=self._last_ms))
        following.metrics.durable_txid = self._last_txid
        following.metrics.durable_ms = self._last_ms or None
        self._last_pages = stored.known[0].position.pages if stored.known else 0
        self.keeper = Keeper(following, store)

    async def run(self) -> None:
        """Open, follow, and again; beside that, keep to `max_lag` and do the duties."""
        max_lag_seconds = self.following.settings.max_lag_seconds
        async with asyncio.TaskGroup() as group:
            if max_lag_seconds is not None:
                group.create_task(LagBound(self, max_lag_seconds).run())
            group.create_task(do_all(self.following, self._duties()))
            group.create_task(self._follow())

    def _duties(self) -> list[Duty]:
        mirrors = [MirrorDuty(mirror=mirror, following=self.following) for mirror in self.following.mirrors]
        return [RollingUp(self.following, self._store), self.keeper, self.drill, *mirrors]

    async def _follow(self) -> None:
        while True:
            opened = await self._opener.open(self._known)
            try:
                await self._hold_session(opened)
                await self._pause_in_outage()
            except* ReplicadError as failed:
                self._opener.say_failed(failed.exceptions[0])
                await asyncio.sleep(RETRY_SECONDS)
            except* Exception as failed:  # one database's fault must not stop the application or the other databases
                self.following.metrics.errors[type(failed.exceptions[0]).__name__] += 1
                self.following.log.exception(events.FAULT_ISOLATED)
                await asyncio.sleep(RETRY_SECONDS)

    async def _pause_in_outage(self) -> None:
        """Leave the database alone while the store is away: until the next session nothing keeps the WAL as it is."""
        if self.following.shipper.away:
            await self.following.shipper.until_back()
            await asyncio.sleep(RETRY_SECONDS)

    async def until_capturing(self) -> None:
        """Wait until the database is followed."""
        await self._in_session.wait()

    @property
    def problem(self) -> str | None:
        """Why the database is not followed now."""
        return self._opener.problem

    @property
    def capturing(self) -> bool:
        """Whether the database is followed now."""
        return self._in_session.is_set()

    async def sync(self) -> Mark:
        """Return once everything that was committed at the call is durable; at once when there is no database."""
        return await self._in_session_that_lasts(Session.sync) or self.following.ledger.durable

    async def snapshot(self, reason: str) -> Manifest:
        """Take a snapshot now; return its manifest once it is stored.

        Raises:
            DatabaseUnusable: there is no database.
        """
        manifest = await self._in_session_that_lasts(partial(Session.snapshot, reason=reason))
        if manifest is None:
            raise DatabaseUnusable(
                path=self.following.path, expected="a database", found="no file", hint="It is waited for."
            )
        return manifest

    async def freeze(self, reason: str) -> None:
        """Keep the application's writers out, also of a file that replaces this one, until `thaw` for each reason.

        Returns when they are; at once when there is no database.
        """
        self._frozen.add(reason)
        await self._in_session_that_lasts(Session.freeze)
        await self._let_write_if_free()

    async def thaw(self, reason: str) -> None:
        """Let them go on, unless they are kept out for another reason."""
        self._frozen.discard(reason)
        await self._let_write_if_free()

    async def _let_write_if_free(self) -> None:
        """Thaw, if there is no reason against it any more when the database's turn comes."""
        await self._in_session_that_lasts(partial(Session.thaw, unless=lambda: bool(self._frozen)))

    async def _in_session_that_lasts(self, ask: Callable[[Session], Coroutine[None, None, T]]) -> T | None:
        """Ask the session; when it ends meanwhile (the database was replaced), ask the next one. None: no database."""
        while True:
            await self._settled.wait()
            session = self._session
            if session is None:
                if await self._opener.is_there():  # it was made a moment ago, and what was committed to it counts
                    continue
                return None
            answer = await race(ask(session), session.ended.wait())
            if answer is not None and not session.ended.is_set():
                return answer.result()

    def durable_position(self) -> Position:
        """Return the newest durable transaction; nothing may be pending, and nobody may write."""
        following, tenure = self.following, self.following.tenure
        if self._capture is not None and tenure.claimed.is_set():
            return Position(
                epoch=following.lineage.epoch,
                txid=following.ledger.durable.txid,
                checksum=self._capture.table.checksum,
                pages=self._capture.table.pages,
            )
        if tenure.start is None:
            raise AssertionError
        return replace(tenure.start.position, epoch=tenure.served)

    async def store_end(self) -> None:
        """Store that this epoch ended in order; everything must be durable, and `run` cancelled."""
        if self._capture is None or self.following.ledger.pending_transactions:
            return
        position = self.durable_position()
        await store_end(self._store, position, clock=self.following.tools.clock)
        await self.following.tools.threads.run(leave_tidy, self.following.path)
        self.following.log.info(events.EPOCH_ENDED, epoch=position.epoch, txid=position.txid)

    # --- sessions ----------------------------------------------------------------------------------

    async def _hold_session(self, opened: Opened) -> None:
        following = self.following
        compare = self._can_compare(opened)
        session, self._capture = await self._begin(opened, compare=compare)
        self._session = session
        following.metrics.capturing = True
        try:
            if opened.opening.continuity is Continuity.LOST:
                self.keeper.note_replaced(before_pages=self._last_pages, pages=opened.opening.table.pages)
            if compare:
                await session.resynchronise("database_replaced")
            elif opened.opening.known is not None:
                await self._record(opened.opening, opened.opening.known.position.txid)
            if self._frozen:
                await session.freeze()
            self._in_session.set()
            self._settled.set()
            await session.run()
        finally:
            session.ended.set()
            self._in_session.clear()
            self._settled.clear()
            self._session = None
            following.metrics.capturing = False
            await following.tools.threads.run(opened.source.close)
            if session.was_replaced:
                await self._set_wal_aside(opened.source.wal.identity)
            self._remember(self._capture, drained=session.drained)

    async def _set_wal_aside(self, wal: FileIdentity | None) -> None:
        """Keep the replaced file's WAL from being taken for the new file's."""
        tools = self.following.tools
        path = await tools.threads.run(self.following.path.resolve)
        try:
            kept = await tools.threads.run(set_wal_aside, path, wal, suffix=f"replaced-{tools.clock.now_ms()}")
        except (TargetBusy, FileUnusable) as error:
            self.following.log.error(events.ORPHANED_WAL, error=str(error))  # noqa: TRY400 - it says enough
        else:
            if kept is not None:
                self.following.log.warning(events.ORPHANED_WAL, kept_as=str(kept))

    async def _record(self, opening: Opening, txid: TXID) -> None:
        """Write down at once which stored transaction this file stands at, and that this epoch goes on from it."""
        epoch, table = self.following.lineage.epoch, opening.table
        position = Position(epoch=epoch, txid=txid, checksum=table.checksum, pages=table.pages)
        await record_state(self.following, position, opening.position)

    def _can_compare(self, opened: Opened) -> bool:
        table = self._table
        return (
            opened.opening.continuity is Continuity.LOST
            and table is not None
            and table.page_size == opened.source.page_size
        )

    async def _begin(self, opened: Opened, *, compare: bool) -> tuple[Session, Capture]:
        following, opening = self.following, opened.opening
        table, next_txid, log = opening.table, TXID(self._last_txid + 1), self._log_since
        owed: Owed | None = None
        if opening.known is not None:
            next_txid = TXID(opening.known.position.txid + 1)
            following.log.info(
                events.CONTINUITY_PROVEN, continuity=opening.continuity.name.lower(), txid=opening.known.position.txid
            )
        elif compare and self._table is not None:
            table = self._table
        else:
            # The state that stands here counts as one transaction, and is stored as a snapshot.
            next_txid = TXID(self._last_txid + 2)
            reason = "first" if self._last_txid == 0 else "continuity_lost"
            owed = Owed(reason=reason, index=opening.index)
            log = LogSince(segments=0, stored_bytes=0, seconds=0.0)
            if self._last_txid:
                following.log.warning(events.CONTINUITY_LOST, txid=next_txid - 1)
                following.metrics.resynchronisations["continuity_lost"] += 1
        # What an earlier session wrote after its last snapshot is not known here: the next one reads every chunk.
        following.snapshots.resume(following.snapshots.newest)
        header = SegmentHeader(
            database_id=following.lineage.database_id,
            epoch=following.lineage.epoch,
            page_size=opened.source.page_size,
            first_txid=next_txid,
            checksum_before=table.checksum,
            pages_before=table.pages,
        )
        beginning = Beginning(table=table, position=opening.position, header=header)
        try:
            beat, writer = await following.tools.threads.run(self._make_beat, opened.source, beginning)
        except BaseException:
            await following.tools.threads.run(opened.source.close)
            raise
        capture = beat.capture
        capture.last_ms = self._last_ms
        if owed is not None:
            following.ledger.oldest_pending_ms = capture.now_ms()
        following.ledger.captured = Mark(txid=TXID(next_txid - 1), ms=capture.last_ms)
        self._look_at_writer(writer)
        following.log.info(events.CAPTURE_STARTED, next_txid=next_txid, pages=table.pages)
        if not opened.source.is_wal:
            following.log.info(events.WAL_KEPT, consequence="commits between two looks become one transaction")
        return Session(following, beat, log=log, owed=owed), capture

    def _make_beat(self, source: Source, beginning: Beginning) -> tuple[Beat, int]:
        """Return what reads the database from here on, and the version number of the SQLite that wrote it last."""
        settings, clock = self.following.settings, self.following.tools.clock
        limits = CaptureLimits(segment_bytes=settings.segment_bytes, compression_level=settings.compression_level)
        capture = (Capture if source.is_wal else ComparingCapture)(source, beginning, limits=limits, clock=clock)
        checkpoints = CheckpointLimits(room_bytes=settings.checkpoint_wal_bytes)
        beat = (Beat if source.is_wal else ComparingBeat)(capture, checkpoints, clock)
        return beat, source.last_writer()

    def _look_at_writer(self, number: int) -> None:
        version = version_text(number)
        self.following.metrics.sqlite_vulnerable = is_vulnerable(version) if number else None
        if self.following.metrics.sqlite_vulnerable:
            self.following.log.warning(
                events.SQLITE_VULNERABLE,
                application_sqlite=version,
                hint="Upgrade the application's SQLite to 3.51.3, 3.50.7 or 3.44.6: see the failure model.",
            )

    def _remember(self, capture: Capture, *, drained: bool) -> None:
        """Keep what the next session can go on from; without a drained session, that is nothing but the numbers."""
        self._last_txid, self._last_ms = TXID(capture.next_txid - 1), capture.last_ms
        self._last_pages = capture.table.pages
        self._table, self._known = None, []
        if not drained:
            return
        self._table = capture.table
        position = Position(
            epoch=self.following.lineage.epoch,
            txid=self._last_txid,
            checksum=capture.table.checksum,
            pages=capture.table.pages,
        )
        self._known = [Known(position=position, ms=self._last_ms, wal=capture.position)]
