"""One verification of one database, at any level, from the listing to what is believed in the end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from replicad.host.clock import SystemClock
from replicad.host.threads import Threads
from replicad.layout import ObjectKind
from replicad.restore.drill import drill
from replicad.restore.fetch import Fetch
from replicad.restore.progress import Silent
from replicad.restore.verification.belief import believe
from replicad.restore.verification.bodies import Bodies, Scope
from replicad.restore.verification.cost import assess
from replicad.restore.verification.faults import Faults, RawFault
from replicad.restore.verification.inventory import Inventory
from replicad.restore.verification.listing import Lister
from replicad.restore.verification.newest import check_newest
from replicad.restore.verification.request import Ahead, Fault, Level, Looked, State, VerifyReport

if TYPE_CHECKING:
    from replicad.host.clock import Clock
    from replicad.plan.line import Line
    from replicad.restore.drill import DrillReport
    from replicad.restore.progress import Progress
    from replicad.restore.verification.cursor import Cursor
    from replicad.restore.verification.listing import Look
    from replicad.restore.verification.request import Exercise, VerifyRequest
    from replicad.store.protocol import ObjectStore

_LOOKS = 4  # at a listing that shows faults, until two in a row agree
_PAUSE_SECONDS = 0.2  # between them
_DRILLS = 2  # before a state is called unrestorable of which no object is at fault


class Verification:
    """One verification.

    Args:
        store: the database's own part of the store.
        request: what is looked at.
        progress: is told how far it is; None: nobody is.
        clock: the machine's when None.
    """

    def __init__(
        self, store: ObjectStore, request: VerifyRequest, progress: Progress | None = None, clock: Clock | None = None
    ) -> None:
        self._store = store
        self._request = request
        self._progress = progress or Silent()
        self._clock = clock or SystemClock()
        self._threads = Threads("verify", request.limits.threads)
        self._fetch = Fetch(store, self._threads, concurrency=request.limits.concurrency)
        self._inventory = Inventory()
        self._bodies: Bodies | None = None
        self._lister = Lister(
            store,
            self._fetch,
            self._inventory,
            promised_ms=request.promised_ms,
            reported=request.reported,
        )

    @property
    def cursor(self) -> Cursor | None:
        """Where the next run over the bodies goes on, also after this one was broken off; None: from the front."""
        return self._request.cursor if self._bodies is None else self._bodies.cursor

    async def run(self) -> VerifyReport:
        """Look, and say what was found. Only once.

        Raises:
            NoBackup: nothing was ever stored.
            NoSpace: a drill has no room.
            FileUnusable: a drill's folder cannot be used.
            NewerFormat: something was written by a later replicad.
            StoreUnreachable, StoreRefused, WrongKey: the store cannot be read.
        """
        await self._threads.run(self._inventory.open)
        try:
            return await self._run()
        finally:
            self._progress.finished()
            await self._threads.run(self._inventory.close)
            await self._threads.close()

    async def _run(self) -> VerifyReport:
        look = await self._steady_look()
        found = Faults()
        found.merge(look.faults)
        report: DrillReport | None = None
        if look.line is not None and self._request.level is Level.BODIES:
            found.merge(await self._read_bodies(look, look.line))
        elif look.line is not None and self._request.level is Level.DRILL and self._request.exercise is not None:
            report, faults = await self._exercise(look.line, self._request.exercise)
            found.merge(faults)
        believed = Faults()
        if found:
            look, believed = await believe(self._lister, self._inventory, self._fetch, look, found)
        return await self._report(look, believed, report)

    async def _steady_look(self) -> Look:
        """Look until nothing is wrong, or the same twice: what was deleted in order, meanwhile, is no fault."""
        look = await self._lister.look()
        for _ in range(_LOOKS - 1):
            if not look.faults:
                return look
            await asyncio.sleep(_PAUSE_SECONDS)
            again = await self._lister.look()
            if again.faults.by_key.keys() == look.faults.by_key.keys():
                return again
            look = again
        return look

    async def _read_bodies(self, look: Look, line: Line) -> Faults:
        cursor = self._request.cursor
        if cursor is not None and cursor.database_id != line.database_id:
            cursor = None
        scope = Scope(look=look, database_id=line.database_id, budget=self._request.budget, cursor=cursor)
        memory_bytes = self._request.limits.memory_bytes
        self._bodies = Bodies(self._fetch, self._inventory, scope, self._clock, memory_bytes=memory_bytes)
        await self._bodies.run(self._progress)
        return self._bodies.faults

    async def _exercise(self, line: Line, exercise: Exercise) -> tuple[DrillReport, Faults]:
        """Drill; when it fails, find all that is wrong with what it needs, or drill again when that is nothing."""
        for attempt in range(_DRILLS):
            report = await drill(self._store, exercise, self._request.limits, self._progress, self._clock)
            if report.restored and not report.unusable:
                return report, Faults()
            manifest, faults = await check_newest(self._fetch, line)
            if faults or report.restored or attempt == _DRILLS - 1:
                break
        if not faults and not report.restored and manifest is not None:
            problem = f"the newest state cannot be put together though each object of it is sound: {report.problem}"
            fault = RawFault(key=manifest, kind=ObjectKind.MANIFEST, fault=Fault.DAMAGED, problem=problem, whole=True)
            faults.add(fault)
        return report, faults

    async def _report(self, look: Look, faults: Faults, report: DrillReport | None) -> VerifyReport:
        objects, stored_bytes = await self._threads.run(self._inventory.totals)
        bodies = self._bodies
        cost = await self._threads.run(assess, look, faults)
        ahead = _ahead(self._request, look.line)
        sound = State.NOT_YET_UPLOADED if ahead else State.OK
        return VerifyReport(
            state=cost.state or sound,
            level=self._request.level,
            line=look.line,
            findings=cost.findings,
            findings_left_out=faults.left_out,
            lost=cost.lost,
            ahead=ahead,
            looked=Looked(
                objects=objects,
                stored_bytes=stored_bytes,
                bodies=bodies.checked if bodies else 0,
                body_bytes=bodies.checked_bytes if bodies else 0,
                requests=self._fetch.requests,
                fetched_bytes=self._fetch.fetched_bytes,
            ),
            cursor=bodies.cursor if bodies else None,
            drill=report,
        )


def _ahead(request: VerifyRequest, line: Line | None) -> Ahead | None:
    """Return what the store has not got yet: of a mirror also what is durable in the replica, and not copied."""
    ahead, mirrored = request.ahead, request.mirrored
    if mirrored is None or line is None or mirrored.database_id != line.database_id or mirrored.epoch < line.head:
        return ahead
    behind = max(0, mirrored.txid - line.last_txid)
    if ahead is None or not behind:
        return Ahead(transactions=behind) if ahead is None else ahead
    return Ahead(transactions=(ahead.transactions or 0) + behind)  # how large that is, nobody here knows
