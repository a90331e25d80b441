"""The daemon's drill: now and then the newest state is restored by a child, and what is found broken is healed.

A drill that finds objects missing or damaged has a fresh snapshot taken at once, and is run again: the present state is
then safe, whatever became of the earlier ones. That happens at most once an interval, so that what a snapshot cannot
heal (what is lost of the past, a disk that breaks whatever is written to it) does not make one after another.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from replicad.errors import ReplicadError
from replicad.observe import events
from replicad.plan.drill import due_in_seconds, needs_snapshot
from replicad.position import TXID
from replicad.replicate.drill_child import child_environment, run_child
from replicad.replicate.drill_outcome import DrillOutcome, DrillRecord, read_record, write_record
from replicad.restore.drill_folder import sweep

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from replicad.config.model import DatabaseSettings
    from replicad.replicate.following import Following
    from replicad.snapshot import Manifest

REASON = "damage"
"""Why a snapshot was taken, as its manifest says."""

_MOST_SNAPSHOTS = 3  # one that was begun before the damage was known may list what is damaged
_SHOWN = 10  # keys in a log line


class Drill:
    """The duty.

    Args:
        following: the database.
        snapshot: has a snapshot taken for a reason, and returns when it is stored.
        run: carries out one drill; None: a child process does.
    """

    name = "drill"

    def __init__(
        self,
        following: Following,
        snapshot: Callable[[str], Awaitable[Manifest]],
        run: Callable[[], Awaitable[DrillOutcome]] | None = None,
    ) -> None:
        self.record: DrillRecord | None = None  # of the last drill
        self._following = following
        self._snapshot = snapshot
        self._run_drill = run or self._run_child

    async def run(self) -> None:
        """Drill whenever it is due, until cancelled; return at once where drills are switched off."""
        following, settings = self._following, self._following.settings
        if settings.drill_interval_seconds <= 0 or following.tools.environment is None:
            return
        database = self._database()
        folder = settings.drill_folder or database.path.parent
        run = following.tools.threads.run
        if await run(sweep, folder, database.name):
            following.log.info(events.DRILL_LEFT_BEHIND, folder=str(folder))
        self.record = await run(read_record, following.path, database_id=following.lineage.database_id)
        if self.record is not None:
            self._measure(self.record)
        while True:
            await self._until_due()
            await self._drill()

    async def _until_due(self) -> None:
        """Wait for the interval, and for something that no drill has seen; nothing is asked of the store meanwhile."""
        following, record = self._following, self.record
        wait_seconds = due_in_seconds(
            record.last if record is not None else None,
            interval_seconds=following.settings.drill_interval_seconds,
            now_ms=following.tools.clock.now_ms(),
        )
        await asyncio.sleep(wait_seconds)
        seen = record.outcome.txid if record is not None and record.outcome.passed else None
        await following.ledger.until_durable(TXID((seen or 0) + 1))
        if following.tenure.lost.is_set():  # another instance owns the database, and drills
            await asyncio.Event().wait()

    async def _drill(self) -> None:
        known = self.record.known if self.record is not None else frozenset()
        durable = self._following.ledger.durable.txid
        outcome = _held_against(durable, await self._run_drill())
        if outcome.ran and self._is_broken(outcome, known):
            outcome, known = await self._heal(outcome), outcome.faulty
        await self._keep(outcome, known & outcome.faulty)

    def _is_broken(self, outcome: DrillOutcome, known: frozenset[str]) -> bool:
        return needs_snapshot(restored=outcome.restored, faulty=outcome.faulty, known=known)

    async def _heal(self, outcome: DrillOutcome) -> DrillOutcome:
        """Have the present state stored anew, also what is stored and damaged, and return how a second drill went."""
        following = self._following
        following.log.error(
            events.DAMAGE_FOUND,
            state=outcome.state,
            problem=outcome.problem,
            objects=len(outcome.faulty),
            keys=sorted(outcome.faulty)[:_SHOWN],
            cannot_be_restored=list(outcome.lost),
            lost_transactions=outcome.lost_transactions,
        )
        following.metrics.damage_found += 1
        following.metrics.lost_transactions = outcome.lost_transactions
        following.snapshots.distrust(outcome.faulty)
        try:
            async with asyncio.timeout(following.settings.drill_timeout_seconds):
                for _ in range(_MOST_SNAPSHOTS):
                    await self._snapshot(REASON)
                    if not following.snapshots.distrusts:
                        break
        except (ReplicadError, TimeoutError) as error:
            problem = str(error) or "not within drill_timeout"
            following.log.error(events.SNAPSHOT_FAILED, reason=REASON, error=problem)  # noqa: TRY400 - it says enough
            return outcome
        return await self._run_drill()

    async def _keep(self, outcome: DrillOutcome, known: frozenset[str]) -> None:
        following, before = self._following, self.record
        now_ms = following.tools.clock.now_ms()
        passed_ms = now_ms if outcome.passed else before.passed_ms if before is not None else None
        self.record = DrillRecord(
            database_id=following.lineage.database_id,
            at_ms=now_ms,
            outcome=outcome,
            known=known if outcome.ran else (before.known if before is not None else frozenset()),
            passed_ms=passed_ms,
        )
        self._measure(self.record)
        self._count(outcome)
        await following.tools.threads.run(write_record, following.path, self.record)

    def _measure(self, record: DrillRecord) -> None:
        metrics, outcome = self._following.metrics, record.outcome
        metrics.drill_ms, metrics.drill_passed_ms = record.at_ms, record.passed_ms
        if outcome.ran:
            metrics.drill_passed = outcome.passed
            metrics.drill_seconds, metrics.drill_rto_seconds = outcome.seconds, outcome.rto_seconds
            metrics.lost_transactions = outcome.lost_transactions

    def _count(self, outcome: DrillOutcome) -> None:
        following = self._following
        result = "put_off" if not outcome.ran else "passed" if outcome.passed else "failed"
        following.metrics.drills[result] += 1
        if not outcome.ran:
            following.log.warning(events.DRILL_PUT_OFF, reason=outcome.kind, error=outcome.problem)
        elif outcome.passed:
            following.log.info(
                events.DRILL_PASSED,
                txid=outcome.txid,
                seconds=outcome.seconds,
                rto_seconds=outcome.rto_seconds,
                state=outcome.state,
            )
        else:
            following.log.error(events.DRILL_FAILED, state=outcome.state, problem=outcome.problem)

    async def _run_child(self) -> DrillOutcome:
        settings, database = self._following.settings, self._database()
        environment = child_environment(self._following.tools.environment or {}, settings, database)
        try:
            return await run_child(environment, timeout_seconds=settings.drill_timeout_seconds)
        finally:  # a child that had to be killed has left its folder
            folder = settings.drill_folder or database.path.parent
            await self._following.tools.threads.run(sweep, folder, database.name)

    def _database(self) -> DatabaseSettings:
        return next(one for one in self._following.settings.databases if one.path == self._following.path)


def _held_against(durable: TXID, outcome: DrillOutcome) -> DrillOutcome:
    """Return the outcome; one that restored an older state than was durable when it began is a loss."""
    if not outcome.restored or outcome.txid is None or outcome.txid >= durable:
        return outcome
    problem = f"TXID {outcome.txid} is the newest that can be restored, and {durable} was reported durable"
    return msgspec.structs.replace(outcome, passed=False, restored=False, state="LOST", problem=problem)


def drill_status(record: DrillRecord | None, at: Callable[[int | None], str | None]) -> Mapping[str, object] | None:
    """Return what `status` says of the last drill; `at` makes a text of Unix milliseconds."""
    if record is None:
        return None
    outcome = record.outcome
    return {
        "at": at(record.at_ms),
        "result": "put off" if not outcome.ran else "passed" if outcome.passed else "failed",
        "problem": outcome.problem,
        "state": outcome.state,
        "txid": outcome.txid,
        "seconds": outcome.seconds,
        "rto_seconds": outcome.rto_seconds,
        "lost_transactions": outcome.lost_transactions,
        "passed_at": at(record.passed_ms),
    }
