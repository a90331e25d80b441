"""Over a year of commits, crashes, roll-ups and retention, every instant that was promised can be restored.

Here some weeks of a small database; `make soak` lives through a year of a larger one, as does
`python -m tests.simulate.year`, which prints tables. A simulation that cannot fail proves nothing: what
the product does is broken in one way after the other, and must be found out.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from replicad.plan import keeping
from replicad.plan.keeping import Keeping
from replicad.plan.retention import _Sorting
from replicad.replicate import rollup
from replicad.replicate.removal import Removal
from replicad.replicate.rollup import RollingUp
from replicad.replicate.ship import Shipper
from replicad.wal.observations import Observations
from tests.simulate.year import live
from tests.simulate.year_oracle import Broken
from tests.simulate.year_plan import WEEKS, YEAR
from tests.simulate.year_report import as_json, bills, table
from tests.simulate.year_time import in_a_year
from tests.support.trial import chosen_seed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from replicad.layout import SegmentKey
    from replicad.plan.listing import SegmentObject
    from replicad.plan.rollup import Group
    from tests.simulate.year_plan import Outcome

pytestmark = pytest.mark.may_block("all of a simulated year is done in one thread")

HAPPENS = (
    "a redeploy onto an empty disk",
    "a crash: died at a request",
    "a crash: died at a request: the disk is empty",
    "a crash: died at a request: the disk is the same",
    "a crash: killed between two requests",
    "a crash during a start",
    "a roll-up stored",
    "a snapshot stored",
    "restored: a moment in the window",
    "restored: a snapshot that a rule promises",
    "restored: a preserved state",
    "restored: the newest state",
    "compared page for page",
    "a VACUUM",
    "a new column",
)
"""What each run must have seen."""


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    """Have nothing logged: a year is long."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


def weeks(tmp_path: Path, seed: int = 1) -> Outcome:
    """Live through some weeks."""
    return in_a_year(live(replace(WEEKS, seed=chosen_seed(seed)), folder=tmp_path))


def test_weeks(tmp_path: Path, figure: Callable[[str], None]) -> None:
    """In weeks of crashes, redeploys and retention all that was promised is restored, and no more is stored.

    Seen to fail where a snapshot in an epoch without commits was left off the line, and where a start that died left
    its probe for ever: that is how both were found.
    """
    outcome = weeks(tmp_path)
    missing = [what for what in HAPPENS if not outcome.happened[what]]
    assert not missing
    assert not [what for what in outcome.said if what.startswith(("error", "exception", "critical"))]
    assert sum(month.restores for month in outcome.months) > 80
    figure(f"{outcome.plan.days} days: {sum(month.restores for month in outcome.months)} restores checked")


def test_a_seed_gives_the_same_weeks(tmp_path: Path) -> None:
    """All that is counted is the same when it is done again: only then can a failure be looked at."""
    plan = replace(WEEKS, days=4, seed=3)
    first, again = (as_json(in_a_year(live(plan, folder=tmp_path))) for _ in range(2))
    for counted in (first, again):
        for month in counted["months"]:  # what a process is called differs, and so what packing makes of it
            for name in ("sent_bytes", "received_bytes", "stored_bytes", "gb_months"):
                month.pop(name)
        counted.pop("most_bytes")
        counted.pop("bills")
    assert first == again


def test_the_tables(tmp_path: Path) -> None:
    """The tables add up: a month's requests, and storage and requests at three providers' prices."""
    outcome = in_a_year(live(replace(WEEKS, days=2), folder=tmp_path))
    assert len(list(table(outcome))) == 4
    assert len(list(bills(outcome))) == 5
    (month,) = outcome.months
    found = as_json(outcome)["bills"]["Cloudflare R2"]
    writes = month.traffic.requests["put"] + month.traffic.requests["list"]
    expected = (writes * 4.5 + month.traffic.requests["get"] * 0.36) / 1e6 * 15
    assert found["requests"] == pytest.approx(expected)
    assert found["looks"] == pytest.approx(30 * 86_400 / 5 * 0.36 / 1e6)


@pytest.mark.soak
@pytest.mark.timeout(3 * 3600)
def test_a_year(tmp_path: Path, figure: Callable[[str], None]) -> None:
    """In a whole year all that was promised is restored."""
    outcome = in_a_year(live(replace(YEAR, seed=chosen_seed(2)), folder=tmp_path, progress=print))
    assert not [what for what in HAPPENS if not outcome.happened[what]]
    for line in (*table(outcome), *bills(outcome)):
        figure(line)


# --- broken on purpose -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Sabotage:
    """One way in which the product could fail."""

    why: str
    found: str  # what the simulation says
    owner: object
    name: str
    broken: Callable[[Any], Any]  # of the whole one


def _rolls_up_nothing(_: Any) -> Any:  # noqa: ANN401 - as any of these
    async def store_rollup(self: RollingUp, group: Group) -> SegmentObject:
        await self._store.delete([found.name for found in group.sources])
        return replace(group.sources[-1], key=group.key)

    return store_rollup


def _leaves_out_the_last(whole: Any) -> Any:  # noqa: ANN401 - as any of these
    return lambda sources: whole(sources[:-1])


def _forgets_the_base(whole: Any) -> Any:  # noqa: ANN401 - as any of these
    def keep_promises(self: Keeping, *args: Any) -> None:  # noqa: ANN401 - whatever it is given
        whole(self, *args)
        for name in [name for name, reason in self.reasons.items() if reason == "grace"]:
            del self.reasons[name]
        if self.begin is not None:
            self.reasons.pop(self.begin.name, None)

    return keep_promises


def _forgets_the_log(whole: Any) -> Any:  # noqa: ANN401 - as any of these
    def keep_segments(self: Keeping, line: Any, after: Any, **rest: Any) -> None:  # noqa: ANN401 - likewise
        if line.manifests:
            after = max(after or 0, line.manifests[-1].key.txid)
        whole(self, line, after, **rest)

    return keep_segments


def _forgets_what_is_listed(whole: Any) -> Any:  # noqa: ANN401 - as any of these
    def chunks(self: _Sorting, in_use: Any) -> Any:  # noqa: ANN401 - likewise
        names = sorted(self._inventory.contents)
        newest = {name: self._inventory.contents[name] for name in names[-1:]}
        self._inventory = replace(self._inventory, contents={name: frozenset() for name in names} | newest)
        return whole(self, in_use)

    return chunks


def _loses_one_in_fifty(whole: Any) -> Any:  # noqa: ANN401 - as any of these
    async def segment(self: Shipper, key: SegmentKey, body: bytes) -> None:
        if key.first % 50 or key.first == 0:
            await whole(self, key, body)

    return segment


def _notes_too_early(whole: Any) -> Any:  # noqa: ANN401 - as any of these
    return lambda self, frames, ms: whole(self, frames, ms - 3_600_000)


async def _deletes_nothing(*_: object) -> None:
    """Take the place of `Removal.remove`."""


SABOTAGES = {
    "roll-up before it is stored": Sabotage(
        why="the small segments go, and nothing stands in their place",
        found="cannot be restored",
        owner=RollingUp,
        name="_store_rollup",
        broken=_rolls_up_nothing,
    ),
    "roll-up of all but the last": Sabotage(
        why="it is not what its key says: replicad itself notices, and deletes nothing for it",
        found="belong to nothing",
        owner=rollup,
        name="put_together",
        broken=_leaves_out_the_last,
    ),
    "no snapshot before the window": Sabotage(
        why="the first moments of the window have a log and nothing to apply it to",
        found="cannot be restored",
        owner=Keeping,
        name="keep_promises",
        broken=_forgets_the_base,
    ),
    "no log in the window": Sabotage(
        why="the window holds snapshots only",
        found="cannot be restored",
        owner=Keeping,
        name="_keep_segments",
        broken=_forgets_the_log,
    ),
    "no rules": Sabotage(
        why="behind the window nothing is kept",
        found="a snapshot that a rule promises",
        owner=keeping,
        name="snapshots_kept",
        broken=lambda _: lambda *_, **__: {},
    ),
    "chunks of older snapshots": Sabotage(
        why="what only an older snapshot lists is deleted",
        found="cannot be restored",
        owner=_Sorting,
        name="_chunks",
        broken=_forgets_what_is_listed,
    ),
    "a segment lost": Sabotage(
        why="it was reported durable, and never stored",
        found="cannot be restored",
        owner=Shipper,
        name="segment",
        broken=_loses_one_in_fifty,
    ),
    "an hour too early": Sabotage(
        why="commits are noted with another time than they had",
        found="a moment in the window",
        owner=Observations,
        name="see",
        broken=_notes_too_early,
    ),
    "nothing is deleted": Sabotage(
        why="what is stored grows for ever",
        found="belong to nothing",
        owner=Removal,
        name="remove",
        broken=lambda _: _deletes_nothing,
    ),
}


@pytest.mark.parametrize("sabotage", SABOTAGES.values(), ids=SABOTAGES)
def test_what_is_broken_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sabotage: Sabotage) -> None:
    """The simulation can fail: each way of breaking a promise is noticed within the weeks, and said for what it is."""
    monkeypatch.setattr(sabotage.owner, sabotage.name, sabotage.broken(getattr(sabotage.owner, sabotage.name)))
    with pytest.raises(Broken, match=sabotage.found):
        weeks(tmp_path)
