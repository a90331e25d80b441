"""From a bucket and perhaps a file to a database that is in place, owned, and ready to be followed.

The order matters: claim (own.py), then list. What an earlier owner reported durable was stored before it could be
fenced, so it is in the listing that is read behind the claim.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.errors import LocalDiffers, NoBackup
from replicad.host.files import move_aside
from replicad.host.machine import instance_name
from replicad.observe import events
from replicad.plan.boot import Course, Local, decide
from replicad.plan.line import Line, line_of_history
from replicad.plan.snapshot import LogSince
from replicad.position import TXID
from replicad.replicate.follower import Opened, Stored, open_source
from replicad.replicate.head import read_heads, read_manifest
from replicad.replicate.lineage import Lineage
from replicad.replicate.own import Owned, founding_records, new_start
from replicad.restore.history import read_history
from replicad.restore.progress import Silent
from replicad.restore.request import Integrity, Limits, RestoreRequest
from replicad.restore.restore import restore
from replicad.sqlite.connection import convert_to_wal, journal_mode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger

    from replicad.config.model import Settings
    from replicad.replicate.continuity import Known
    from replicad.replicate.state_file import StateFile
    from replicad.replicate.tenure import Tenure
    from replicad.replicate.tools import Tools
    from replicad.restore.request import Restored
    from replicad.snapshot import Manifest
    from replicad.store.protocol import ObjectStore

COMPANIONS = ("-wal", "-shm", "-journal", "-replicad")


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
class Boot:
    """One database at start."""

    path: Path
    store: ObjectStore
    settings: Settings
    tools: Tools
    log: FilteringBoundLogger
    owned: Owned
    tenure: Tenure
    state: StateFile | None  # what stands beside the file
    may_replace: bool  # False beside an application that may have the file open

    async def run(self) -> Booted:
        """List, and bring file and history together.

        Raises:
            StoreUnreachable, StoreRefused: nothing was decided, nothing was changed.
            LocalDiffers: the local file would have to be replaced under a running application.
        """
        epoch = self.owned.epoch
        line = await self._read_line()
        known = await read_heads(self.store, line) if line else []
        opened = await self.tools.threads.run(self._open_if_there, known)
        course = decide(self._local(opened, line), known[0].position if known else None)
        restored = None
        if course in {Course.RESTORE, Course.FORWARD, Course.ASIDE}:
            await self._clear_the_way(course, opened)
            restored = await self._restore()
            opened = await self.tools.threads.run(self._open, known)
        database_id = line.database_id if line else uuid.uuid4().hex
        parent = opened.opening.known if opened and opened.opening.known else (known[0] if known else None)
        start = new_start(database_id, epoch, parent.position if parent else None, clock=self.tools.clock)
        await self.tenure.begin(self.store, start)
        records = founding_records(self.owned.claim_id, start, instance=instance_name(os.environ))
        lineage = Lineage(database_id=database_id, epoch=epoch, claim_id=self.owned.claim_id, records=records)
        manifest = await read_manifest(self.store, line.manifests[-1].name) if line and line.manifests else None
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

    async def _read_line(self) -> Line | None:
        try:
            line = line_of_history(await read_history(self.store))
        except NoBackup:
            return None
        return line if line.segments or line.manifests else None

    def _open_if_there(self, known: Sequence[Known]) -> Opened | None:
        there = self.path.exists() and self.path.stat().st_size > 0
        return self._open(known) if there else None

    def _open(self, known: Sequence[Known]) -> Opened:
        if self.settings.wal == "convert" and journal_mode(self.path) != "wal" and convert_to_wal(self.path):
            self.log.info(events.WAL_CONVERTED, path=str(self.path))
        return open_source(self.path, known)

    def _local(self, opened: Opened | None, line: Line | None) -> Local | None:
        if opened is None:
            return None
        state, table = self.state, opened.opening.table
        return Local(
            proven=opened.opening.known is not None,
            checksum=table.checksum,
            pages=table.pages,
            recorded=state.position if state else None,
            same_database=state is not None and line is not None and state.database_id == line.database_id,
            all_noted=self.owned.continued and state is not None and _knows_what_was_reported(state, line),
        )

    async def _clear_the_way(self, course: Course, opened: Opened | None) -> None:
        if opened is not None:
            await self.tools.threads.run(opened.source.close)
        if not self.may_replace and await self.tools.threads.run(
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

    async def _restore(self) -> Restored:
        request = RestoreRequest(
            path=self.path,
            force=True,
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
        later = [part.stored.size_bytes for part in line.segments if part.until > since]
        age_ms = self.tools.clock.now_ms() - manifest.created_ms if manifest else 0
        return LogSince(segments=len(later), stored_bytes=sum(later), seconds=max(0, age_ms) / 1000)


def _knows_what_was_reported(state: StateFile, line: Line | None) -> bool:
    """Return whether the state file is no older than the last report of its own process.

    It is written behind each segment, before that one is reported and the next one sent. So a process that died leaves
    one segment at most that it does not know of. With two, the disk was rolled back to an earlier time, or copied: what
    stands on it must not be stored over transactions that were reported durable.
    """
    if line is None or not line.segments:
        return True
    newest = max(line.segments, key=lambda part: part.until)
    return state.txid >= newest.first - 1
