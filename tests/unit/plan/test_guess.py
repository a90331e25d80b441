"""What is asked for before the starts are there: right where history went its usual way, and never an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicad.plan.guess import likely
from replicad.plan.line import line_of_history
from replicad.plan.restore import RestorePlan, plan_restore
from replicad.plan.target import AtTime, AtTXID, Latest, Target
from replicad.position import TXID, Epoch
from tests.support.line_of_keys import at, history, segment, snapshot, start
from tests.unit.plan.test_restore import World, worlds

if TYPE_CHECKING:
    from replicad.ownership.records import EpochStart

ONE = [snapshot(1, 1), segment(2, 4, 4), segment(5, 5, 5), snapshot(5, 5), segment(6, 8, 8), segment(9, 9, 9)]
"""An epoch of two snapshots."""

HISTORIES: dict[str, tuple[list[tuple[str, int]], list[EpochStart]]] = {
    "one epoch": (ONE, [start(1)]),
    "a redeploy that has written nothing": (ONE, [start(1), start(2, 1, 9)]),
    "a redeploy": ([*ONE, segment(10, 12, 12, epoch=2)], [start(1), start(2, 1, 9)]),
    "a redeploy with a snapshot": (
        [*ONE, segment(10, 12, 12, epoch=2), snapshot(12, 12, epoch=2), segment(13, 13, 13, epoch=2)],
        [start(1), start(2, 1, 9)],
    ),
    "an orphaned tail": ([*ONE, segment(9, 12, 12, epoch=3)], [start(1), start(3, 1, 8)]),
    "three redeploys": (
        [*ONE, segment(10, 10, 10, epoch=2), segment(11, 20, 20, epoch=4)],
        [start(1), start(2, 1, 9), start(3, 2, 10), start(4, 3, 10)],
    ),
    "a roll-up": ([*ONE, segment(6, 9, 9, size_bytes=5000)], [start(1)]),
}


@pytest.mark.parametrize("case", HISTORIES)
@pytest.mark.parametrize("target", [Latest(), AtTXID(TXID(7)), AtTXID(TXID(1)), AtTime(at(8)), AtTime(at(7))])
def test_the_guess_is_the_plan(case: str, target: Target) -> None:
    """It names what the plan names, the newest segment first: that is the order in which they are opened."""
    objects, starts = HISTORIES[case]
    found = history(objects, starts=starts)
    plan = plan_restore(line_of_history(found), target)
    names = [stored.name for stored in likely(found.listing, target)]
    if isinstance(plan, RestorePlan):
        assert names == [plan.manifest.name, *(part.name for part in reversed(plan.segments))]
    else:  # what else is needed depends on it
        assert names == [plan.segment.name]


def test_the_line_of_an_epoch() -> None:
    """An earlier epoch's own end has another way to it."""
    found = history([*ONE, segment(9, 12, 12, epoch=2)], starts=[start(1), start(2, 1, 8)])
    names = [stored.name for stored in likely(found.listing, Latest(), epoch=Epoch(1))]
    assert names == [snapshot(5, 5)[0], segment(9, 9, 9)[0], segment(6, 8, 8)[0]]


@pytest.mark.parametrize(
    "objects",
    [[], [segment(2, 9, 9)], [snapshot(1, 1), segment(3, 3, 3)], [segment(n, n, n) for n in range(1, 1200)]],
    ids=["nothing", "no snapshot", "a gap", "a long log"],
)
def test_nothing_is_guessed(objects: list[tuple[str, int]]) -> None:
    """Where there is no way, and where to find it takes too long."""
    assert likely(history(objects).listing, Latest()) == ()


TARGETS: st.SearchStrategy[Target] = st.one_of(st.just(Latest()), st.integers(0, 40).map(lambda n: AtTXID(TXID(n))))


@given(worlds(), TARGETS)
@settings(max_examples=200)
def test_any_history_has_a_guess_or_none(world: World, target: Target) -> None:
    """However wrong it is, it names objects that are there, each once."""
    listing = world.history().listing
    names = [stored.name for stored in likely(listing, target)]
    there = {part.name for part in listing.segments} | {found.name for found in listing.manifests}
    assert set(names) <= there
    assert len(names) == len(set(names))
