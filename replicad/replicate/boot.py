"""From a bucket and perhaps a file to a database that is in place, owned, and ready to be followed.

The order matters: claim (own.py), then list. What an earlier owner reported durable was stored before it could be
fenced, so it is in the listing that is read behind the claim.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from replicad.errors import FileUnusable, LocalDiffers, NoSpace
from replicad.host.files import move_aside
from replicad.host.machine import instance_name
from replicad.observe import events
from replicad.plan.boot import Course, Local, decide
from replicad.plan.line import Line
from replicad.plan.rollup import uncovered
from replicad.plan.snapshot import LogSince
from replicad.position import TXID
from replicad.replicate.head import read_heads, read_line, read_manifest
from replicad.replicate.lineage import Lineage
from replicad.replicate.opened import Opened, Stored, open_source
from replicad.replicate.own import Owned, founding_records, new_start
from replicad.replicate.state_file import write_state
from replicad.replicate.tenure import Intent, beyond
from replicad.restore.progress import Silent
from replicad.restore.request import Integrity, Limits, RestoreRequest
from replicad.restore.restore import restore
from replicad.sqlite.connection import convert_to_wal, journal_mode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger

    from replicad.config.model import Settings
    from replicad.plan.line import Line
    from replicad.plan.listing import Listing
    from replicad.replicate.continuity import Known
    from replicad.replicate.state_file import StateFile
    from replicad.replicate.tenure import Tenure
    from replicad.replicate.tools import Tools
    from replicad.restore.request import Evidence, Restored
    from replicad.snapshot import Manifest
    from replicad.store.protocol import ObjectStore

COMPANIONS = ("-wal", "-shm", "-journal", "-replicad")
_LOCAL_GOES_ON = frozenset({Course.GO_ON, Course.STORE_LOCAL})


@dataclass(frozen=True, slots=True, kw_only=True)
class Booted:
    """A database that is in place and owned."""

    lineage: Lineage
    stored: Stored
    manifest: Manifest | None  # of the newest snapshot
    opened: Opened | None  # None: there is no file yet
    restored: Restored | None
    first_restorable_ms: int | None  # commit time of the oldest snapshot on the line
    orphaned_transactions: int  # stored, but not on the line
    first_start: bool  # neither a history nor a file was there


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFile:
    """What is known of the file before it is opened."""

    state: StateFile | None  # what stands beside it
    may_replace: bool  # False beside an application that may have it open
    evidence: Evidence | None = None  # of a restore that came before


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """One database at start."""

    path: Path
    store: ObjectStore
    settings: Settings
    tools: Tools
    log: FilteringBoundLogger
    owned: Owned
    tenure: Tenure
    local: LocalFile

    async def run(self) -> Booted:
        """List, and bring file and history together.

        Raises:
            StoreUnreachable, StoreRefused: nothing was decided, nothing was changed.
            LocalDiffers: the local file would have to be replaced under a running application.
        """
        listing, line = await read_line(self.store)
        known = await read_heads(self.store, line) if line else []
        opened = await self.tools.threads.run(self._open_if_there, known)
        course = decide(self._local(opened, listing, line), known[0].position if known else None)
        restored = None
        if course in {Course.RESTORE, Course.FORWARD, Course.ASIDE}:
            await self._clear_the_way(course, opened)
            restored = await self._restore(line, opened.opening.evidence if opened else None)
            opened = await self.tools.threads.run(self._open, known, restored.evidence)
            restored = replace(restored, evidence=None)  # eight bytes a page: the capture's from here on, or nobody's
        try:
            manifest = await self._newest_manifest(line, restored)
            lineage = await self._begin(listing, line, _parent(opened, known), goes_on=course in _LOCAL_GOES_ON)
        except BaseException:
            if opened is not None:
                await self.tools.threads.run(opened.source.close)
            raise
        return Booted(
            lineage=lineage,
            stored=Stored(known=known, log=self._log_since(line, manifest)),
            manifest=manifest,
            opened=opened,
            restored=restored,
            first_restorable_ms=line.manifests[0].key.ms if line and line.manifests else None,
            orphaned_transactions=sum(tail.last - tail.first + 1 for tail in line.orphans) if line else 0,
            first_start=course is Course.FIRST and opened is None,
        )

    async def _newest_manifest(self, line: Line | None, restored: Restored | None) -> Manifest | None:
        if line is None or not line.manifests:
            return None
        key = line.manifests[-1].name
        return restored.manifest if restored and restored.manifest_key == key else await read_manifest(self.store, key)

    async def _begin(self, listing: Listing, line: Line | None, parent: Known | None, *, goes_on: bool) -> Lineage:
        tried = self.tenure.start  # by an attempt that failed: what it made up stays
        database_id = line.database_id if line else tried.database_id if tried else uuid.uuid4().hex
        start = new_start(database_id, self.owned.epoch, parent.position if parent else None, clock=self.tools.clock)
        note = partial(self._note_claim, goes_on=goes_on)
        intent = Intent(
            start=start, beyond=beyond(listing, start.position.txid), taken=start.epoch in listing.starts, note=note
        )
        start = await self.tenure.begin(self.store, intent)
        records = founding_records(self.owned.claim_id, start, instance=instance_name(os.environ))
        return Lineage(
            database_id=start.database_id, epoch=self.owned.epoch, claim_id=self.owned.claim_id, records=records
        )

    async def _note_claim(self, *, goes_on: bool) -> None:
        """Have the state file name the new claim, where what it speaks of goes on in the new epoch.

        Until the first segment it would name the claim before: a process that is killed until then, perhaps with a
        large snapshot under way, would be taken for a stranger at its next start, and the file be kept aside.
        """
        if self.local.state is None or not goes_on:
            return
        state = msgspec.structs.replace(self.local.state, epoch=self.owned.epoch, claim_id=self.owned.claim_id)
        try:
            await self.tools.threads.run(write_state, self.path, state)
        except (NoSpace, FileUnusable) as error:
            self.log.warning(events.STATE_NOT_WRITTEN, error=str(error))

    def _open_if_there(self, known: Sequence[Known]) -> Opened | None:
        there = self.path.exists() and self.path.stat().st_size > 0
        return self._open(known, self.local.evidence) if there else None

    def _open(self, known: Sequence[Known], evidence: Evidence | None) -> Opened:
        if self.settings.wal == "convert" and journal_mode(self.path) != "wal" and convert_to_wal(self.path):
            self.log.info(events.WAL_CONVERTED, path=str(self.path))
        return open_source(self.path, known, evidence)

    def _local(self, opened: Opened | None, listing: Listing, line: Line | None) -> Local | None:
        if opened is None:
            return None
        state, table = self.local.state, opened.opening.table
        # What the claim says of the past holds up to the claim; what was written until the listing, only that shows.
        alone = self.owned.continued and state is not None and not _went_on_without(state, listing)
        return Local(
            proven=opened.opening.known is not None,
            checksum=table.checksum,
            pages=table.pages,
            recorded=state.position if state else None,
            same_database=state is not None and line is not None and state.database_id == line.database_id,
            all_noted=alone and state is not None and _knows_what_was_reported(state, line),
        )

    async def _clear_the_way(self, course: Course, opened: Opened | None) -> None:
        if opened is not None:
            await self.tools.threads.run(opened.source.close)
        if not self.local.may_replace and await self.tools.threads.run(
            self.path.exists
        ):  # an empty file too: SQLite makes it when it opens a database
            raise LocalDiffers(path=self.path, store=self.store.url)
        if course is Course.ASIDE:
            kept = await self.tools.threads.run(self._move_aside)
            self.log.warning(events.LOCAL_KEPT_ASIDE, path=str(self.path), kept_as=str(kept))

    def _move_aside(self) -> Path:
        kept = move_aside(self.path, f"diverged-{self.tools.clock.now_ms()}")
        for companion in COMPANIONS:
            beside = self.path.with_name(self.path.name + companion)
            if beside.exists():
                beside.rename(kept.with_name(kept.name + companion))
        return kept

    async def _restore(self, line: Line | None, standing: Evidence | None) -> Restored:
        request = RestoreRequest(
            path=self.path,
            force=True,
            listed=line,
            standing=standing,
            evidence=True,
            integrity=Integrity(self.settings.integrity),
            limits=Limits(
                concurrency=self.settings.restore_concurrency, memory_bytes=self.settings.restore_memory_bytes
            ),
        )
        return await restore(self.store, request, Silent(), self.tools.clock)

    def _log_since(self, line: Line | None, manifest: Manifest | None) -> LogSince:
        if line is None:
            return LogSince(segments=0, stored_bytes=0, seconds=0.0)
        since = manifest.txid if manifest else TXID(0)
        behind = (part.stored for part in line.segments if part.until > since)
        later = [stored.size_bytes for stored in uncovered(behind)]
        age_ms = self.tools.clock.now_ms() - manifest.created_ms if manifest else 0
        return LogSince(segments=len(later), stored_bytes=sum(later), seconds=max(0, age_ms) / 1000)


def _parent(opened: Opened | None, known: Sequence[Known]) -> Known | None:
    """Return the stored transaction that the epoch continues from; None: nothing is stored."""
    if opened is not None and opened.opening.known is not None:
        return opened.opening.known
    return known[0] if known else None


def _went_on_without(state: StateFile, listing: Listing) -> bool:
    """Return whether an epoch later than the one the state file names was begun, or written into."""
    return max(listing.epochs, default=0) > state.epoch


def _knows_what_was_reported(state: StateFile, line: Line | None) -> bool:
    """Return whether the state file is no older than the last report of its own process.

    It is written behind each segment, before that one is reported and the next one sent. So a process that died leaves
    one segment at most that it does not know of. With two, the disk was rolled back to an earlier time, or copied: what
    stands on it must not be stored over transactions that were reported durable.
    """
    if line is None or not line.segments:
        return True
    newest = max(line.segments, key=lambda part: (part.until, part.first))
    return state.txid >= newest.first - 1
