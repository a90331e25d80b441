"""`max_lag`: writers wait while what they committed is not durable for too long."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.waiting import wait_until_async
from tests.unit.replicate.test_freeze import can_write

if TYPE_CHECKING:
    from tests.unit.replicate.conftest import Stage

MAX_LAG_SECONDS = 0.3


@pytest.fixture
def bounded(stage: Stage) -> Stage:
    """A stage with a bound."""
    stage.flags |= {"max_lag": f"{MAX_LAG_SECONDS}s"}
    return stage


async def test_a_store_that_is_away_stops_the_writers(bounded: Stage) -> None:
    """When the oldest commit is older than the bound writers wait and readers go on, until all of it is durable."""
    await bounded.begin()
    bounded.store.reachable = False
    began = bounded.tools.clock.monotonic()
    bounded.insert(2)
    assert can_write(bounded)
    await bounded.until("lag_frozen")
    await wait_until_async(lambda: not can_write(bounded))
    assert bounded.tools.clock.monotonic() - began >= MAX_LAG_SECONDS * 0.9  # a commit's time is in whole milliseconds
    assert [n for (n,) in bounded.connection.execute("SELECT n FROM t ORDER BY n")] == [0, 1, 2]
    assert bounded.metrics.frozen.count == 0
    bounded.store.reachable = True
    await bounded.until("lag_thawed")
    assert can_write(bounded)
    assert not bounded.follower.following.ledger.pending
    assert await bounded.check_newest() == bounded.follower.following.ledger.durable.txid
    assert (bounded.metrics.lag_freezes, bounded.metrics.frozen.count) == (1, 1)


async def test_it_does_so_each_time(bounded: Stage) -> None:
    """The bound holds again after an outage."""
    await bounded.begin()
    for number in (2, 3):
        bounded.store.reachable = False
        bounded.insert(number)
        await bounded.until("lag_frozen", number - 1)
        bounded.store.reachable = True
        await bounded.until("lag_thawed", number - 1)
    assert bounded.metrics.lag_freezes == 2
    assert await bounded.sync() == bounded.follower.following.ledger.durable.txid


async def test_a_store_in_time_stops_nobody(bounded: Stage) -> None:
    """While each commit is durable in time nobody waits, however long the application writes."""
    await bounded.begin()
    number, until = 2, bounded.tools.clock.monotonic() + 3 * MAX_LAG_SECONDS
    while bounded.tools.clock.monotonic() < until:
        bounded.insert(number)
        await bounded.sync()
        number += 1
    assert bounded.metrics.lag_freezes == 0


async def test_off_unless_set(stage: Stage) -> None:
    """Without the setting an outage stops nobody."""
    await stage.begin()
    stage.store.reachable = False
    stage.insert(2)
    await wait_until_async(lambda: stage.metrics.lag_seconds() > 2 * MAX_LAG_SECONDS)
    assert can_write(stage)
    assert stage.metrics.lag_freezes == 0


async def test_the_first_snapshot_counts(bounded: Stage) -> None:
    """A state whose first snapshot takes long is not durable either; when it is, writers go on, counted once.

    Seen to fail while the age that was published last counted by itself: it is renewed a moment after all is durable,
    and until then writers were frozen again and again.
    """
    bounded.insert(0)
    bounded.store.shut = ("put", "snapshots/")
    await bounded.start()
    await bounded.until("lag_frozen")
    await wait_until_async(lambda: not can_write(bounded))
    bounded.store.shut = None
    await bounded.until("lag_thawed")
    assert can_write(bounded)
    bounded.insert(1)
    await bounded.sync()
    assert bounded.metrics.lag_freezes == 1


async def test_the_bound_and_a_handover_do_not_thaw_each_other(bounded: Stage) -> None:
    """Writers that wait for both wait until both are over, whichever is over first."""
    await bounded.begin()
    for number, first in ((2, "handover"), (3, "max_lag")):
        bounded.store.reachable = False
        bounded.insert(number)
        await bounded.follower.freeze("handover")
        await bounded.until("lag_frozen", number - 1)
        assert not can_write(bounded)
        if first == "handover":
            await bounded.follower.thaw("handover")
            assert not can_write(bounded)
        bounded.store.reachable = True
        await bounded.until("lag_thawed", number - 1)
        if first == "max_lag":
            assert not can_write(bounded)
            await bounded.follower.thaw("handover")
        assert can_write(bounded)


async def test_a_writer_at_work_finishes_first(bounded: Stage) -> None:
    """A transaction that is open when the bound is passed is committed, and is durable before writers go on."""
    await bounded.begin()
    bounded.store.reachable = False
    bounded.insert(2)
    bounded.connection.execute("BEGIN IMMEDIATE")
    await bounded.until("lag_frozen")
    bounded.insert(3)
    bounded.connection.execute("COMMIT")
    await wait_until_async(lambda: not can_write(bounded))
    bounded.store.reachable = True
    await bounded.until("lag_thawed")
    assert list((await bounded.states()).values())[-1] == [0, 1, 2, 3]


async def test_nothing_is_left_behind_by_a_stop(bounded: Stage) -> None:
    """A follower that is stopped while writers wait lets them go: its lock ends with it."""
    await bounded.begin()
    bounded.store.reachable = False
    bounded.insert(2)
    await bounded.until("lag_frozen")
    await wait_until_async(lambda: not can_write(bounded))
    await bounded.stop()
    assert can_write(bounded)
