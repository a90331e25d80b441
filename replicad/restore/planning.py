"""From a request to a plan, and from a plan that failed to another one for the same transaction."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import structlog

from replicad.errors import Damaged, HistoryGap, ObjectMissing, ProofFailed, TargetOutsideWindow
from replicad.observe import events
from replicad.plan.guess import likely
from replicad.plan.line import Line, line_of_history
from replicad.plan.restore import RestorePlan, plan_restore
from replicad.plan.target import AtTime, AtTXID
from replicad.restore.faults import Unusable
from replicad.restore.history import read_history
from replicad.restore.preparation import prepare
from replicad.restore.rollups import commit_times
from replicad.restore.segments import WHOLE_BYTES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from replicad.errors import ReplicadError
    from replicad.plan.line import LineSegment
    from replicad.plan.listing import Listing
    from replicad.plan.target import CommitTimes, Target
    from replicad.position import TXID, Epoch
    from replicad.restore.fetch import Fetch
    from replicad.restore.preparation import Preparation
    from replicad.store.protocol import ObjectStore

MAX_PLANS = 16
"""Plans that are tried before a restore gives up: each new one leaves out at least one object more."""

_FOR_STARTS = 2  # requests under way that are left to what is known to be needed

_log = structlog.get_logger(__name__)


class Planner:
    """Makes the plans of one restore, and remembers what turned out not to be usable.

    Args:
        store: the database's own part of the store.
        fetch: reads the indexes that decide what a time means.
        target: what is asked for.
        epoch: the line of this epoch; None: the newest line.
        listed: that line, or what it is found in, if that was asked for before.
    """

    def __init__(
        self,
        store: ObjectStore,
        fetch: Fetch,
        target: Target,
        epoch: Epoch | None,
        listed: Line | Awaitable[Listing] | None = None,
    ) -> None:
        self.unusable: set[str] = set()  # keys of segments and manifests
        self.unusable_chunks: dict[str, ReplicadError] = {}
        self._store = store
        self._fetch = fetch
        self._target = target
        self._epoch = epoch
        self._listed = listed
        self._plans = 0

    async def first(self, *, foreseen_bytes: int = 0) -> RestorePlan:
        """Read the history, unless that was done, and return the plan for the target.

        Args:
            foreseen_bytes: how much may be asked for before it is known that it is needed.

        Raises:
            NoBackup: nothing was ever stored.
            TargetOutsideWindow: the target lies outside of what can be restored.
            HistoryGap: what was committed at the target cannot be restored.
            UsageError: the epoch asked for never started.
            Damaged: the starts of the epochs contradict one another.
            ReplicadError: the store failed.
        """
        line = await self._line(partial(self._foresee, foreseen_bytes) if foreseen_bytes else None)
        times: dict[str, CommitTimes] = {}
        while True:
            answer = plan_restore(line, self._target, times=times, without=self.unusable)
            if isinstance(answer, RestorePlan):
                await self._fetch.forget(but={answer.manifest.name, *(part.name for part in answer.segments)})
                return answer
            try:
                found = await self._times(answer.segment, line.database_id)
            except (Damaged, ObjectMissing) as error:
                self._note(answer.segment.name, error)
            else:
                times[answer.segment.name] = found

    async def another(self, txid: TXID, fault: Unusable) -> RestorePlan:
        """Return another way to the transaction, on a history read anew (what is missing may have been rolled up).

        Raises:
            HistoryGap: there is none; names what was wrong, and the nearest instants.
            ProofFailed: there is none, and what was wrong is that the whole is not what it should be.
            ReplicadError: the store failed.
        """
        self._plans += 1
        if fault.chunk is not None:
            self.unusable_chunks[fault.chunk] = fault.error
        line = await self._line()
        problem: HistoryGap | TargetOutsideWindow | None = None
        for suspect in fault.suspects:
            try:
                plan = plan_restore(line, AtTXID(txid), without=self.unusable | {suspect})
            except (HistoryGap, TargetOutsideWindow) as error:
                problem = problem or error
                continue
            if isinstance(plan, RestorePlan) and self._plans < MAX_PLANS:
                self._note(suspect, fault.error)
                return plan
        if isinstance(fault.error, ProofFailed):
            raise fault.error
        nearest = problem.details["nearest"] if problem else "not known"
        raise HistoryGap(
            database=line.label, target=self._target, found=_brief(fault.error), nearest=nearest
        ) from fault.error

    async def _times(self, segment: LineSegment, database_id: str) -> CommitTimes:
        ms = self._target.ms if isinstance(self._target, AtTime) else 0  # nothing but a time needs an index
        return await commit_times(self._fetch, segment, ms, database_id=database_id)

    async def _line(self, tell: Callable[[Listing], None] | None = None) -> Line:
        listed, self._listed = self._listed, None  # whoever asks again wants to know what there is now
        if isinstance(listed, Line):
            return listed
        history = await read_history(self._store, epoch=self._epoch, listed=tell, listing=listed)
        return line_of_history(history, epoch=self._epoch)

    def _foresee(self, room_bytes: int, listing: Listing) -> None:
        """Ask for what is probably opened first: the store is a round trip away, and the starts come with the next."""
        names: list[str] = []
        most = self._fetch.concurrency - _FOR_STARTS
        for found in likely(listing, self._target, epoch=self._epoch):
            room_bytes -= found.size_bytes
            if room_bytes < 0 or len(names) >= most or found.size_bytes > WHOLE_BYTES:
                break  # a large one is read in parts
            names.append(found.name)
        self._fetch.foresee(names)

    def _note(self, name: str, error: ReplicadError) -> None:
        self.unusable.add(name)
        _log.warning(events.OBJECT_UNUSABLE, key=name, found=_brief(error))


async def prepare_around(fetch: Fetch, planner: Planner, plan: RestorePlan) -> Preparation:
    """Prepare the plan, or the first of those around its faults that can be prepared.

    Raises:
        ReplicadError: there is none, or the store failed.
    """
    while True:
        try:
            return await prepare(fetch, plan)
        except Unusable as fault:
            plan = await planner.another(plan.txid, fault)


def _brief(error: ReplicadError) -> str:
    """Return what is wrong, without the advice: the error that quotes it has its own."""
    if isinstance(error, ObjectMissing):
        return f"{error.details['key']} is missing"
    if isinstance(error, Damaged):
        found = error.details
        return f"{found['what']} is damaged ({found['where']}: expected {found['expected']}, found {found['found']})"
    return str(error)
