"""A full restore for the sake of it: into a folder that goes away, asked as an application would ask it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from replicad.errors import Damaged, HistoryGap, NewerFormat, NoSpace, ObjectMissing, ProofFailed, TargetOutsideWindow
from replicad.host.files import free_bytes
from replicad.host.interruptible import interruptible
from replicad.host.threads import Threads
from replicad.restore.assertions import Answer, ask_all, open_restored
from replicad.restore.drill_folder import DrillFolder
from replicad.restore.prove import ask_sqlite
from replicad.restore.request import Integrity, RestoreRequest
from replicad.restore.restore import estimate, restore

if TYPE_CHECKING:
    from pathlib import Path

    from replicad.host.clock import Clock
    from replicad.position import TXID
    from replicad.restore.progress import Progress
    from replicad.restore.request import Limits, Restored
    from replicad.restore.verification.request import Exercise
    from replicad.store.protocol import ObjectStore

_MARGIN_SHARE = 10  # the part of the database that has to be free beside it
_MARGIN_BYTES = 64 << 20  # and at least so much: the application writes meanwhile
_UNRESTORABLE = (Damaged, HistoryGap, NewerFormat, ObjectMissing, ProofFailed, TargetOutsideWindow)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillReport:
    """How a drill went; what was not reached is None or empty."""

    restored: bool  # the newest state was put together, and its checksum is the source's
    problem: str | None  # why it was not, or what SQLite found
    intact: bool  # SQLite's integrity_check found nothing
    answers: tuple[Answer, ...]  # to the assertions
    unusable: tuple[str, ...]  # objects that another way led around
    txid: TXID | None
    commit_ms: int | None
    database_bytes: int | None
    rto_seconds: float | None  # from the start of the restore until the database could be asked
    seconds: float  # all of it

    @property
    def passed(self) -> bool:
        """Whether the state is the source's, SQLite finds no fault with it, and every assertion holds."""
        return self.restored and self.intact and all(answer.holds for answer in self.answers)


async def drill(
    store: ObjectStore, exercise: Exercise, limits: Limits, progress: Progress, clock: Clock
) -> DrillReport:
    """Restore the newest state into a temporary folder, look at it, and remove it.

    Raises:
        NoSpace: the folder's disk has no room for a second copy with a margin; nothing was fetched.
        FileUnusable: the folder cannot be written to.
        NoBackup: nothing was ever stored.
        StoreUnreachable, StoreRefused, WrongKey: the store cannot be read.
    """
    threads = Threads("drill", 1)
    began = clock.monotonic()
    taken = DrillFolder(exercise.folder, exercise.name)
    try:
        await threads.run(taken.take)
        request = RestoreRequest(path=taken.path / "restored.db", limits=limits)
        try:
            planned = await estimate(store, request)
            await threads.run(_require_room, exercise.folder, planned.database_bytes)
            restored = await restore(store, request, progress, clock)
        except _UNRESTORABLE as error:
            return _unrestorable(str(error), clock.monotonic() - began)
        return await _examine(restored, exercise, threads, clock, began)
    finally:
        await threads.run(taken.remove)
        await threads.close()


def _require_room(folder: Path, database_bytes: int) -> None:
    needed_bytes = database_bytes + max(database_bytes // _MARGIN_SHARE, _MARGIN_BYTES)
    room_bytes = free_bytes(folder)
    if room_bytes < needed_bytes:
        raise NoSpace(path=folder, needed_bytes=needed_bytes, free_bytes=room_bytes)


async def _examine(restored: Restored, exercise: Exercise, threads: Threads, clock: Clock, began: float) -> DrillReport:
    await threads.run(open_restored, restored.path)
    rto_seconds = clock.monotonic() - began
    problem: str | None = None
    try:
        await interruptible(threads, partial(ask_sqlite, restored.path, Integrity.FULL))
    except ProofFailed as error:
        problem = f"{error.details['check']}: {error.details['found']}"
    asked = partial(ask_all, restored.path, exercise.assertions, exercise.assertion_timeout_seconds)
    answers = await interruptible(threads, asked)
    return DrillReport(
        restored=True,
        problem=problem,
        intact=problem is None,
        answers=answers,
        unusable=restored.unusable,
        txid=restored.txid,
        commit_ms=restored.commit_ms,
        database_bytes=restored.pages * restored.page_size,
        rto_seconds=rto_seconds,
        seconds=clock.monotonic() - began,
    )


def _unrestorable(problem: str, seconds: float) -> DrillReport:
    return DrillReport(
        restored=False,
        problem=problem,
        intact=False,
        answers=(),
        unusable=(),
        txid=None,
        commit_ms=None,
        database_bytes=None,
        rto_seconds=None,
        seconds=seconds,
    )
