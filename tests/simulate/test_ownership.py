"""Two instances never mix their histories: the protocols under tens of thousands of schedules.

The same generators that the daemon drives run here in virtual time, many instances of them, over a store that loses
requests and answers, delays them, and applies writes long after they were given up; while processes crash, stand still
and come back, on their disk, on an empty one, or on a copy of another's.

    I1  What was ever reported durable is on the final line of history, under its TXID, with its content.
    I2  It is on the line that any later owner begins with.
    I3  When the faults end, some instance owns and ships before long.
    I4  What was reported was accepted in the order of the line: no two applications wrote at the same time.
    I5  No instance takes its own claim for another's.
    I6  No epoch's folder is written by two processes.

A schedule is a seed. `REPLICAD_SEED=123 pytest tests/simulate` runs that one alone and prints what happened;
`make soak` runs a million others (`REPLICAD_SCHEDULES`), for twenty minutes at most.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from replicad.errors import ReplicadError
from replicad.ownership import owner
from replicad.ownership.requests import Pause, Steps
from tests.simulate.history import Violation
from tests.simulate.sabotage import BROKEN
from tests.simulate.schedule import FAITHFUL, Sabotage, Schedule

if TYPE_CHECKING:
    from collections.abc import Iterable

SCHEDULES = 10_000
PARTS = 2
CALM_SCHEDULES = 1_000
SOAK_SECONDS = 60 * 60
TRACE_LINES = 80

COVERED = {
    "Retired": "an owner handed over, and somebody else claimed",
    "OWNER_SILENT": "an epoch was seized after silence",
    "Reclaimed": "an owner claimed anew because its newcomer had died",
    "stood by": "an instance claimed anew because its successor had died before its first word",
    "Fenced": "an owner found that it was none any more",
    "overtaken at boot": "an instance lost its epoch between claim and start",
    "LOST_ANSWER_SETTLED": "a create without a plain answer was read back",
    "continued": "an instance came back on its own disk",
    "PUT_OFF": "an owner could not ship its rest in time, and let its application go on",
}
"""What each part of the run must have seen."""

MODEL = Path(__file__).with_name("handover.pml")


def chosen(seeds: Iterable[int]) -> Iterable[int]:
    """Return the seeds, or the one that is asked for."""
    one = os.environ.get("REPLICAD_SEED")
    return seeds if one is None else [int(one)]


def run(seeds: Iterable[int], sabotage: Sabotage = FAITHFUL) -> Counter[str]:
    """Run schedules; return what they covered. A failure comes with its seed and its trace."""
    covered: Counter[str] = Counter()
    for seed in seeds:
        schedule = Schedule(seed, sabotage=sabotage)
        try:
            schedule.run()
        except (Violation, ReplicadError) as error:
            pytest.fail(f"{error}\nreplay it with REPLICAD_SEED={seed}; it ended with\n{trace_of(seed, TRACE_LINES)}")
        covered.update(schedule.world.coverage)
    return covered


def trace_of(seed: int, lines: int = 0) -> str:
    """Return what happened in a schedule, or the last lines of it."""
    schedule = Schedule(seed, tracing=True)
    try:
        schedule.run()
    except (Violation, ReplicadError) as error:
        schedule.world.say("VIOLATED", error)
    return "\n".join((schedule.world.trace or [])[-lines:])


def first_violation(seeds: Iterable[int], sabotage: Sabotage) -> tuple[int, str] | None:
    """Return the first seed that breaks a promise, and which."""
    for seed in seeds:
        try:
            Schedule(seed, sabotage=sabotage).run()
        except (Violation, ReplicadError) as error:
            return seed, str(error)
    return None


@pytest.mark.parametrize("part", range(PARTS))
def test_no_schedule_breaks_a_promise(part: int) -> None:
    """Nothing reported is ever lost, nothing is mixed, and everything goes on when the faults are over."""
    if "REPLICAD_SEED" in os.environ:
        print(trace_of(int(os.environ["REPLICAD_SEED"])))  # noqa: T201 - asked for
    seeds = chosen(range(part, SCHEDULES, PARTS))
    covered = run(seeds)
    if "REPLICAD_SEED" not in os.environ:
        assert [f"never: {what}" for name, what in COVERED.items() if not covered[name]] == []


@pytest.mark.parametrize("name", BROKEN)
def test_each_guard_is_needed(name: str) -> None:
    """Without the guard some schedule breaks a promise, and the simulation notices."""
    broken = BROKEN[name]
    with broken.in_place() as sabotage:
        found = first_violation(range(SCHEDULES), sabotage)
    assert found is not None, f"not noticed, although {broken.why}"
    print(f"{name}: noticed after {found[0] + 1} schedules: {found[1]}")  # noqa: T201 - how strong the faults are


def test_a_rolling_deploy_loses_nothing() -> None:
    """Without faults nobody is fenced or taken for dead, and every transaction ever committed is kept."""
    handovers = 0
    for seed in range(CALM_SCHEDULES):
        schedule = Schedule(seed, calm=True)
        content = schedule.run()
        world = schedule.world
        assert (world.coverage["Fenced"], world.coverage["OWNER_SILENT"]) == (0, 0), f"seed {seed}"
        kept = {*content.transactions, *schedule.local_transactions()}
        assert set(range(len(world.accepted_at))) <= kept, f"seed {seed}"
        handovers += world.coverage["Retired"]
    assert handovers > CALM_SCHEDULES


def test_signs_of_life_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An owner that restores for long and gives no sign of life is taken for dead by a second newcomer."""

    def show_no_life(*_: object) -> Steps[None]:
        yield Pause(seconds=1e9)

    monkeypatch.setattr(owner, "show_life", show_no_life)
    taken_for_dead = 0
    for seed in range(CALM_SCHEDULES):
        schedule = Schedule(seed, calm=True)
        schedule.run()
        taken_for_dead += schedule.world.coverage["OWNER_SILENT"]
    assert taken_for_dead


def test_a_seed_is_a_schedule() -> None:
    """The same seed gives the same events, so that a failure can be looked at again."""
    assert trace_of(5) == trace_of(5)
    assert trace_of(5) != trace_of(6)


@pytest.mark.soak
def test_a_million_schedules() -> None:
    """The same, for schedules that `make test` has no time for."""
    wanted = int(os.environ.get("REPLICAD_SCHEDULES", "1000000"))
    began_at, done = time.monotonic(), 0
    while done < wanted and time.monotonic() - began_at < SOAK_SECONDS:
        run(range(SCHEDULES + done, SCHEDULES + min(done + 1000, wanted)))
        done = min(done + 1000, wanted)
    print(f"{done} schedules in {time.monotonic() - began_at:.0f} s")  # noqa: T201 - what a soak is read for
    assert done


@pytest.mark.soak
@pytest.mark.skipif(not (shutil.which("spin") and shutil.which("cc")), reason="needs spin and cc")
@pytest.mark.parametrize("sabotage", ["", "-DNO_LOOK", "-DLIST_FIRST", "-DANY_PARENT"])
def test_every_interleaving_within_bounds(tmp_path: Path, sabotage: str) -> None:
    """Of claims, looks and listings, every interleaving of three processes over three epochs keeps what was reported.

    Each guard is needed here as well: without it the checker finds an interleaving that does not.
    """
    options = [sabotage] if sabotage else []
    subprocess.run(["spin", "-a", *options, str(MODEL)], cwd=tmp_path, check=True)
    subprocess.run(["cc", "-w", "-O2", "-DSAFETY", "-DCOLLAPSE", "-o", "pan", "pan.c"], cwd=tmp_path, check=True)
    found = subprocess.run([tmp_path / "pan", "-m1000000"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert ("errors: 0" in found.stdout) == (not sabotage), found.stdout
    assert ("assertion violated" in found.stdout) == bool(sabotage)
    assert "max search depth too small" not in found.stdout
