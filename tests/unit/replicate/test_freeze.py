"""Keeping the application's writers out for a while: for a handover, and as a bound on what can be lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import apsw
import pytest

from tests.support.waiting import wait_until_async

if TYPE_CHECKING:
    from tests.unit.replicate.conftest import Stage


def can_write(stage: Stage) -> bool:
    """Return whether the application gets the write lock now."""
    stage.connection.set_busy_timeout(0)
    try:
        stage.connection.execute("BEGIN IMMEDIATE; ROLLBACK")
    except apsw.BusyError:
        return False
    return True


async def begun(stage: Stage) -> None:
    """Follow a database of one row."""
    stage.insert(1)
    await stage.start()
    await stage.until("snapshot_stored")


@pytest.mark.parametrize("mode", ["wal", "delete"])
async def test_writers_wait_and_readers_go_on(stage: Stage, mode: str) -> None:
    """While frozen nobody can write, whatever the journal mode, all that was committed is sent, and reading goes on."""
    stage.flags |= {"wal": "keep"}
    stage.insert(0)
    stage.connection.pragma("journal_mode", mode)
    await begun(stage)
    stage.insert(2)
    await stage.follower.freeze("test")
    assert not can_write(stage)
    assert [n for (n,) in stage.connection.execute("SELECT n FROM t")] == [0, 1, 2]
    await stage.sync()
    await stage.check_newest()
    await stage.follower.thaw("test")
    assert can_write(stage)
    stage.insert(3)
    await stage.sync()
    await stage.check_newest()


async def test_each_reason_counts(stage: Stage) -> None:
    """Writers are kept out until the last reason is gone."""
    await begun(stage)
    await stage.follower.freeze("one")
    await stage.follower.freeze("other")
    await stage.follower.thaw("one")
    assert not can_write(stage)
    await stage.follower.thaw("other")
    assert can_write(stage)


async def test_the_one_that_writes_finishes_first(stage: Stage) -> None:
    """A transaction that is open when the freeze begins is not broken; it is committed and sent."""
    await begun(stage)
    stage.connection.execute("BEGIN IMMEDIATE")
    freezing = asyncio.create_task(stage.follower.freeze("test"))
    stage.insert(2)
    assert not freezing.done()
    stage.connection.execute("COMMIT")
    await freezing
    assert not can_write(stage)
    await stage.sync()
    assert list((await stage.states()).values())[-1] == [1, 2]


async def test_room_is_made_while_frozen(stage: Stage) -> None:
    """A checkpoint of ours neither ends the freeze nor waits for it."""
    stage.flags |= {"checkpoint_wal_bytes": "256KiB"}
    await begun(stage)
    for number in range(100, 200):
        stage.insert(number, size_bytes=8000)
    await stage.follower.freeze("test")
    await wait_until_async(lambda: stage.metrics.checkpoints > 0)
    assert not can_write(stage)
    await stage.follower.thaw("test")
    assert can_write(stage)


async def test_a_file_put_in_place_while_frozen(stage: Stage) -> None:
    """Another file at the path is frozen as well: nothing is written that would not be sent."""
    await begun(stage)
    await stage.follower.freeze("test")
    other = stage.path.with_name("other.db")
    source = apsw.Connection(str(other))
    source.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (7, 'x')")
    source.close()
    stage.close()
    other.replace(stage.path)
    await stage.until("capture_started", 2)
    await wait_until_async(lambda: stage.follower.capturing)
    assert not can_write(stage)
    await stage.follower.thaw("test")
    assert can_write(stage)
