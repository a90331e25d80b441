"""The course of a simulated year: an application that commits, processes that come and go, and checks in between."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from replicad.layout import MarkKey
from replicad.plan.mark import Mark, encode_mark
from replicad.store.directory import DirectoryStore
from tests.simulate.year_application import Application, moments
from tests.simulate.year_checks import Checks
from tests.simulate.year_months import Months
from tests.simulate.year_oracle import DAY_MS, DELAY_MS, Broken, Preserved, State, Timeline, snapshot_of
from tests.simulate.year_plan import Outcome
from tests.simulate.year_process import Process, Surroundings
from tests.simulate.year_store import Bucket, CountedStore, Traffic, Witness, kind_of_request
from tests.simulate.year_time import DAY_SECONDS, HOUR_SECONDS, YearClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tests.simulate.year_plan import Plan

_MOST_LOST_MS = 5_000  # of commits, with the disk: sync_interval, and what a boot needs until it sends

Event = tuple[float, "Callable[[], Awaitable[None]]"]  # second of the day, what happens


class Year:
    """The run; `folder` holds the disk and the bucket."""

    def __init__(self, plan: Plan, folder: Path, *, progress: Callable[[str], None] = lambda _: None) -> None:
        self.plan = plan
        self.outcome = Outcome(plan=plan)
        self._progress = progress
        self._dice = random.Random(plan.seed)
        self._clock = YearClock()
        for made in ("disk", "bucket"):
            (folder / made).mkdir()
        self._database = folder / "disk" / "app.db"
        self._timeline = Timeline()
        self._beneath = DirectoryStore(folder / "bucket")
        self._bucket = Bucket(self._clock.now_ms)
        self._store = Witness(self._beneath, self._bucket, self._note_put)
        checked = CountedStore(self._beneath, self._bucket, Traffic())
        self._checks = Checks(checked, folder, self._timeline, self.outcome, self._dice)
        self._application = Application(self._database, self._dice)
        self._surroundings = Surroundings(
            database=self._database, store=self._store, settings=plan.settings, said=self.outcome.said
        )
        self._process = Process(self._surroundings)
        self._may_die_at_start = False
        self._disks_lost = 0
        self._started_ms = 0  # when the process was ready
        self._months = Months(self._store, self._database)
        self._wal_bytes = 0  # that processes which have ended have read

    # --- the course of it --------------------------------------------------------------------------

    async def run(self) -> Outcome:
        """Live through it.

        Raises:
            Broken: a promise was not kept.
        """
        try:
            await self._begin()
            for day in range(self.plan.days):
                for second, act in sorted(self._events(day), key=lambda event: event[0]):
                    await self._sleep_until(day * DAY_SECONDS + second)
                    await act()
                await self._sleep_until((day + 1) * DAY_SECONDS)
                self._months.days += 1
                if ((day + 1) % 30 == 0 and day + 6 < self.plan.days) or day + 1 == self.plan.days:
                    self._close_month()
            if await self._stop():
                await self._checks.newest()
        finally:
            await self._process.kill()
            self._application.close()
            await self._beneath.close()
        self.outcome.most_bytes = self._bucket.most_bytes
        return self.outcome

    async def _begin(self) -> None:
        self._application.open()
        self._note()
        await self._start()
        self._bulk(self.plan.rhythm.notes_at_first)
        await self._process.sync()
        self._may_die_at_start = True

    async def _sleep_until(self, second: float) -> None:
        """Let time go by; when the process dies meanwhile, so does the application, and both begin again."""
        while (left_seconds := second - self._clock.monotonic()) > 0:
            try:
                async with asyncio.timeout(left_seconds):
                    await self._process.store.died.wait()
            except TimeoutError:
                return
            await self._crash("died at a request")

    def _events(self, day: int) -> list[Event]:
        """Return what happens on a day: what visitors do, what is due, what goes wrong, and what is checked."""
        plan, dice = self.plan, self._dice
        events: list[Event] = [(second, self._visit) for second in moments(day, plan.rhythm, dice)]
        if not plan.rhythm.holiday[0] <= day < plan.rhythm.holiday[1]:
            events += self._chores(day)
        events += [(dice.uniform(0, DAY_SECONDS), self._misfortune) for _ in range(self._often(plan.crashes_a_week))]
        events += [(dice.uniform(0, DAY_SECONDS), self._checks.window) for _ in range(plan.checks_a_day)]
        events.append((12.5 * HOUR_SECONDS, self._check_superfluous))
        if day % plan.kept_every_days == plan.kept_every_days - 1:
            events.append((13.1 * HOUR_SECONDS, self._checks.kept))
        if day % plan.kept_every_days == 1:
            events.append((15.2 * HOUR_SECONDS, self._check_newest))
        if day == plan.days // 6:
            events.append((16.3 * HOUR_SECONDS, self._preserve))
        return events

    def _chores(self, day: int) -> list[Event]:
        rhythm, dice = self.plan.rhythm, self._dice
        events: list[Event] = [(3.5 * HOUR_SECONDS, _later(lambda: self._clean_up(rhythm.most_notes)))]
        seldom: tuple[tuple[int, int, Callable[[], None]], ...] = (
            (rhythm.import_days, 11, lambda: self._bulk(rhythm.import_rows)),
            (rhythm.vacuum_days, 47, self._vacuum),
            (rhythm.schema_days, 25, self._change_schema),
            (rhythm.purge_days, 79, self._purge),
        )
        events += [
            (dice.uniform(8, 20) * HOUR_SECONDS, _later(chore))
            for every, offset, chore in seldom
            if day % every == offset % every
        ]
        redeploys = self._often(self.plan.redeploys_a_week)
        return events + [(dice.uniform(9, 18) * HOUR_SECONDS, self._redeploy) for _ in range(redeploys)]

    def _often(self, a_week: float) -> int:
        return int(a_week / 7 + self._dice.random())

    # --- the application ---------------------------------------------------------------------------

    async def _visit(self) -> None:
        self._application.act()
        self._note(image=self._dice.random() < 0.02)

    def _clean_up(self, most_notes: int) -> None:
        self._application.clean_up(most_notes)
        self._note()

    def _bulk(self, rows: int) -> None:
        self._application.bulk(rows)
        self._note()
        self.outcome.happened["an import"] += 1

    def _vacuum(self) -> None:
        self._application.vacuum()
        self._note(image=True)
        self.outcome.happened["a VACUUM"] += 1

    def _change_schema(self) -> None:
        self._application.change_schema()
        self._note(image=True)
        self.outcome.happened["a new column"] += 1

    def _purge(self) -> None:
        self._clean_up(self.plan.rhythm.most_notes // 3)
        self.outcome.happened["most of it deleted"] += 1

    def _note(self, *, image: bool = False) -> None:
        """Note what the database holds from now on; what watches it learns that it was written to."""
        now_ms, application = self._clock.now_ms(), self._application
        state = State(
            number=application.number,
            at_ms=now_ms,
            noted_ms=now_ms + DELAY_MS,
            digest=application.digest,
            image=application.image_digest() if image else None,
        )
        self._timeline.add(state)
        self._months.commits += 1
        self._process.watcher.written()

    async def _preserve(self) -> None:
        """Preserve the present state for a third of the time."""
        if not await self._process.sync():
            return
        following, now_ms = self._process.follower.following, self._clock.now_ms()
        txid, epoch = following.ledger.durable.txid, following.lineage.epoch
        until_ms = now_ms + self.plan.days * DAY_MS // 3
        mark = Mark(txid=txid, epoch=epoch, until_ms=until_ms, made_ms=now_ms, reason="a simulated year")
        await self._store.put(str(MarkKey(txid=txid, epoch=epoch, until_ms=until_ms)), encode_mark(mark))
        self._timeline.marks.append(Preserved(txid=txid, until_ms=until_ms, state=self._timeline.states[-1]))

    async def _check_superfluous(self) -> None:
        """Look for what belongs to nothing; a process that nobody has committed to since its start deletes nothing."""
        if self._timeline.states[-1].at_ms < self._started_ms:
            self._checks.superfluous.forgive()
        else:
            await self._checks.nothing_superfluous()

    async def _check_newest(self) -> None:
        if await self._process.sync():
            await self._checks.newest()

    # --- processes ---------------------------------------------------------------------------------

    async def _start(self) -> None:
        """Start a process, and another one where it dies before it is ready; then the application."""
        while True:
            self._process = Process(self._surroundings)
            if self._may_die_at_start and self._dice.random() < 0.2:
                self._process.store.die_at(self._dice.randrange(1, 30), self._dice.random())
            if await self._process.start():
                break
            await self._end_at_once("a crash during a start")
            await asyncio.sleep(self._dice.uniform(1, 60))
        self._started_ms = self._clock.now_ms()
        if not self._application.is_open:
            self._application.open()

    async def _end_at_once(self, how: str) -> None:
        """Kill the process and the application, and perhaps lose the disk."""
        process, with_disk = self._process, self._dice.random() < 0.5
        await process.kill()
        self._application.close()
        self._wal_bytes += process.wal_bytes
        self._disks_lost += not with_disk
        process.keep_disk() if with_disk else process.lose_disk()
        self.outcome.happened[how] += 1
        self.outcome.happened[f"{how}: the disk is {'the same' if with_disk else 'empty'}"] += 1
        if process.store.at:
            self.outcome.happened[f"died at {kind_of_request(process.store.at)}"] += 1

    async def _stop(self) -> bool:
        """End application and process in order; return False when it died meanwhile, and another one runs."""
        self._application.close()
        if not await self._process.stop():
            await self._crash("died while it stopped")
            return False
        self._wal_bytes += self._process.wal_bytes
        return True

    async def _redeploy(self) -> None:
        """End in order, and begin on an empty disk."""
        if not await self._stop():
            return
        newest = self._timeline.states[-1].number
        self._process.lose_disk()
        await asyncio.sleep(self._dice.uniform(2, 20))
        await self._start()
        self.outcome.happened["a redeploy onto an empty disk"] += 1
        self._must_hold(newest, newest, "a redeploy")

    async def _misfortune(self) -> None:
        """Kill the process, now or at one of the requests that it is yet to make."""
        if self._dice.random() < 0.35:
            await self._crash("killed between two requests")
            return
        kinds = ("", "put log/", ".segs", "snapshots/", "chunks/", "delete log/", "delete snapshots", "probes/")
        kind = self._dice.choice(kinds)
        requests = self._dice.randrange(1, 3 if kind else 200)
        self._process.store.die_at(requests, self._dice.random(), kind)

    async def _crash(self, how: str) -> None:
        """Kill process and application; begin again, with the disk or without it; see what is left."""
        died_ms, newest, died_at = self._clock.now_ms(), self._timeline.states[-1].number, self._process.store.at
        durable_ms = self._process.follower.following.ledger.durable.ms if self._process.is_booted else 0
        disks_lost = self._disks_lost
        await self._end_at_once(f"a crash: {how}")
        await asyncio.sleep(self._dice.uniform(1, 600))
        await self._start()
        surely = [
            one.number
            for one in self._timeline.states
            if self._disks_lost == disks_lost or one.noted_ms < durable_ms or one.at_ms < died_ms - _MOST_LOST_MS
        ]
        self._must_hold(max(surely, default=0), newest, f"a crash ({how} {died_at})")
        self.outcome.lost_commits += len(self._timeline.cut(self._application.number))
        if await self._process.sync():
            self._timeline.delay(died_ms - _MOST_LOST_MS, self._clock.now_ms() + DELAY_MS)
            await self._checks.newest()

    def _must_hold(self, least: int, most: int, why: str) -> None:
        """See that the application finds one of its own states, and none that is too old."""
        found, digest = self._application.number, self._application.digest
        known = {state.digest for state in self._timeline.states if state.number == found}
        if not least <= found <= most or digest not in known:
            raise Broken(f"after {why} the database is at commit {found}; {least} to {most} were expected")

    # --- counting ----------------------------------------------------------------------------------

    def _note_put(self, key: str, body: bytes) -> None:
        """Note that an object was stored."""
        now_ms = self._clock.now_ms()
        if "/log/" in key:
            self._checks.superfluous.log_puts.append((now_ms, len(body)))
            self.outcome.happened["a roll-up stored" if key.endswith(".segs") else "a segment stored"] += 1
        elif (snapshot := snapshot_of(key, body, now_ms)) is not None:
            self._timeline.snapshots.append(snapshot)
            self.outcome.happened["a snapshot stored"] += 1

    def _close_month(self) -> None:
        self._months.close(
            self.outcome, wal_bytes=self._wal_bytes + self._process.wal_bytes, restores=self._checks.restores
        )
        month = self.outcome.months[-1]
        self._progress(f"{month.commits} commits, {month.restores} restores, {month.stored_bytes} bytes at its end")


def _later(what: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    async def act() -> None:
        what()

    return act
