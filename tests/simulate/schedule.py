"""One schedule: machines, what their platform does to them, and what happens to the network, all drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.ownership.timing import Timing
from tests.simulate.history import Violation, read_content
from tests.simulate.instance import Instance
from tests.simulate.process import Disk, Habits
from tests.simulate.world import World

if TYPE_CHECKING:
    from tests.simulate.history import Content

TIMING = Timing(
    poll_seconds=2.0,
    newcomer_poll_seconds=1.0,
    slack_seconds=1.0,
    handover_timeout_seconds=8.0,
    patience_seconds=40.0,
)
"""Shorter than the defaults, so that a schedule has fewer events; the proportions are alike."""

PROGRESS_SECONDS = 200.0
"""When the faults are over, some instance owns and ships after so long at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sabotage:
    """What is broken in the driver or the network; protocols are broken by `tests.simulate.sabotage`."""

    lists_before_claiming: bool = False
    repeats_creates: bool = False


FAITHFUL = Sabotage()


class Machine:
    """A place where one process after the other runs."""

    def __init__(self, schedule: Schedule, name: str) -> None:
        self.process: Instance | None = None
        self._schedule, self._name, self._lives = schedule, name, 0
        self._disk = Disk()

    def start(self) -> None:
        """Start the next process on the disk that there is."""
        schedule = self._schedule
        self._lives += 1
        self.process = Instance(
            schedule.world, f"{self._name}.{self._lives}", self._disk, schedule.habits, self._restart
        )
        if not schedule.is_quiet and schedule.crashes_often and schedule.world.random.random() < 0.5:
            self.process.steps_left = schedule.world.random.randint(1, 80)
        self.process.begin()

    def _restart(self) -> None:
        world, schedule = self._schedule.world, self._schedule
        draw = world.random.random()
        if draw < 0.35:
            self._disk = Disk()
        elif draw < 0.5 and schedule.copies:  # an older state of some disk, or a copy of another machine's
            self._disk = world.random.choice(schedule.copies).copy()
            world.say(self._name, "gets a copied disk")
        world.after(0.2 + world.random.random() * 6, self.start)

    def suffer(self) -> None:
        """Let something happen to the process."""
        world, process = self._schedule.world, self.process
        if process is None or not process.alive or self._schedule.is_quiet:
            return
        draw, seconds = world.random.random(), world.random.choice((3.0, 12.0, 12.0, 40.0)) * world.random.random()
        left = self._schedule.faults_end - world.now
        if draw < 0.25:
            process.crash()
        elif draw < 0.35:
            process.stop()
        elif draw < 0.65:
            process.stand_still(min(seconds, left))
        elif draw < 0.8:
            world.say(process.name, f"cannot reach the store for {seconds:.1f} s")
            process.away_until = world.now + min(seconds, left)
        elif draw < 0.9:
            world.say("store", f"away for {seconds:.1f} s")
            world.network.away_until = world.now + min(seconds, left)
        else:
            world.say(process.name, "its disk is copied")
            self._schedule.copies.append(self._disk.copy())


class Schedule:
    """Machines in a world; run once."""

    def __init__(self, seed: int, *, sabotage: Sabotage = FAITHFUL, calm: bool = False, tracing: bool = False) -> None:
        self.world = world = World(seed, tracing=tracing)
        draw = world.random
        self.is_quiet = calm
        self.faults_end = draw.uniform(15, 70)
        self.crashes_often = draw.random() < 0.6
        self.copies: list[Disk] = []
        self.habits = Habits(
            timing=TIMING,
            commit_seconds=draw.choice((0.5, 1.0, 3.0)),
            restore_seconds=draw.choice((0.1, 1.0, 1.0, 8.0)),
            exits_when_fenced=draw.random() < 0.5,
            lists_before_claiming=sabotage.lists_before_claiming,
        )
        world.network.delay_seconds = draw.choice((0.02, 0.1, 0.3))
        world.network.fault_share = 0.0 if calm else draw.choice((0.0, 0.03, 0.1, 0.3))
        world.network.repeats_creates = sabotage.repeats_creates
        self.machines = [Machine(self, name) for name in "abc"[: draw.choice((2, 2, 3))]]

    def run(self) -> Content:
        """Let the faults happen, then wait for progress; return the final history.

        Raises:
            Violation: a promise was broken.
        """
        world, draw = self.world, self.world.random
        for number, machine in enumerate(self.machines):
            world.after(draw.uniform(3, self.faults_end) if number else 0.0, machine.start)
            for _ in range(0 if self.is_quiet else draw.randint(0, 5)):
                world.after(draw.uniform(0, self.faults_end), machine.suffer)
        world.run(self.faults_end, lambda: False)
        self._end_faults()
        world.run(self.faults_end + PROGRESS_SECONDS, self._is_in_progress)
        if not self._is_in_progress():
            raise Violation(f"I3: nothing was shipped for {PROGRESS_SECONDS:.0f} s although nothing fails any more")
        return self._check()

    def local_transactions(self) -> set[int]:
        """Return what stands on the disks of those that were not replaced."""
        running = [machine.process for machine in self.machines if machine.process is not None]
        return {found for process in running if not process.is_done for found in process.disk.transactions}

    def _is_in_progress(self) -> bool:
        return self.world.newest_reported_at > self.faults_end

    def _end_faults(self) -> None:
        world = self.world
        world.say("world", "no faults from here on")
        self.is_quiet = True
        world.network.fault_share = world.network.away_until = 0.0
        for machine in self.machines:
            if machine.process is not None:
                machine.process.steps_left = None
                machine.process.stopped_until = 0.0
        if all(machine.process is not None and machine.process.is_done for machine in self.machines):
            Machine(self, "z").start()  # all handed over to one that is gone for good

    def _check(self) -> Content:
        world = self.world
        world.let_everything_arrive()
        content = read_content(world.objects, world.objects)
        world.reported.check_on(content.transactions, world.reported.transactions, "I1")
        world.reported.check_order()
        return content
