from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import apsw
import pytest

from replicad.errors import DatabaseUnusable
from replicad.host.clock import SystemClock
from replicad.layout import parse_segment
from replicad.plan.target import AtTime
from replicad.restore.request import RestoreRequest
from replicad.restore.restore import restore
from replicad.segment import decode
from tests.support.waiting import wait_until_async

if TYPE_CHECKING:
    from tests.unit.replicate.conftest import Stage

SMALL = {"segment_bytes": "256KiB", "checkpoint_wal_bytes": "256KiB", "max_wal_bytes": "1MiB"}


def wal_bytes(stage: Stage) -> int:
    """Return the size of the WAL's file."""
    return Path(f"{stage.path}-wal").stat().st_size


def put_another_in_place(stage: Stage, other: Path) -> None:
    """Replace the database by one with the row 77, as an application does that takes its old files away."""
    stage.close()
    connection = apsw.Connection(str(other))
    connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (77, 77)")
    connection.close()
    for end in ("-wal", "-shm"):
        Path(f"{stage.path}{end}").unlink()
    other.rename(stage.path)


async def test_commits_become_transactions(stage: Stage) -> None:
    """Each commit that is followed gets the next TXID, and its state can be restored."""
    await stage.begin()
    stage.insert(2, 3)
    assert await stage.sync() == 4
    assert await stage.states() == {1: [0], 2: [0, 1], 3: [0, 1, 2], 4: [0, 1, 2, 3]}
    assert await stage.check_newest() == 4


async def test_a_sync_of_nothing(stage: Stage) -> None:
    """Without a commit since the last one, a sync returns at once and stores nothing."""
    await stage.begin()
    before = await stage.objects()
    for _ in range(3):
        assert await stage.sync() == 2
    assert await stage.objects() == before


async def test_syncs_at_once(stage: Stage) -> None:
    """Many syncs at a time are answered, each no sooner than what was committed before it is durable."""
    await stage.begin()
    syncs = []
    for number in range(2, 12):
        stage.insert(number)
        syncs.append(asyncio.create_task(stage.sync()))
        await asyncio.sleep(0)
    answers = await asyncio.gather(*syncs)
    assert all(answer >= 3 + position for position, answer in enumerate(answers))


async def test_a_missing_database(stage: Stage) -> None:
    """Without a database a sync returns at once, a snapshot is an error, and a database that appears is followed."""
    await stage.start()
    await stage.until("database_awaited")
    assert await stage.sync() == 0
    with pytest.raises(DatabaseUnusable, match="found no file"):
        await stage.follower.snapshot("command")
    stage.insert(0)
    await stage.until("snapshot_stored")
    stage.insert(1)
    await stage.sync()
    await stage.check_newest()


async def test_a_sync_right_behind_a_replacement(stage: Stage, tmp_path: Path) -> None:
    """A sync speaks for the file that stands at the path when it is asked, though nobody has looked there yet.

    Seen to fail with a sync that asked the session at hand: it said that all of the old file was durable.
    """
    await stage.begin()
    put_another_in_place(stage, tmp_path / "other.db")
    txid = await stage.sync()
    assert (await stage.states())[txid] == [77]


async def test_nothing_is_read_while_the_wal_is_let_go(stage: Stage) -> None:
    """While nothing protects unread frames, neither a sync nor a snapshot reads them, and neither promises anything.

    Seen to fail with a snapshot that pinned the present state at once: frames that had been overwritten were missing
    from the transactions before it, and those states never were.
    """
    stage.flags |= SMALL
    await stage.begin()
    stage.store.reachable = False
    for number in range(100, 400):
        stage.insert(number, size_bytes=8000)
        await asyncio.sleep(0)
    await stage.until("wal_let_go")
    stage.connection.wal_checkpoint(mode=3)  # TRUNCATE
    asked = [asyncio.create_task(stage.sync()), asyncio.create_task(stage.follower.snapshot("command"))]
    for number in range(1000, 1020):
        stage.insert(number)
        await asyncio.sleep(0.005)
    assert not any(task.done() for task in asked)
    stage.store.shut = ("put_stream", "")  # what was read arrives, what was let go does not
    stage.store.reachable = True
    await wait_until_async(lambda: stage.store.count("put_stream"))
    assert not any(task.done() for task in asked)
    stage.store.shut = None
    await asyncio.gather(*asked)
    await stage.sync()
    await stage.check_newest()
    order = [0, 1, *range(100, 400), *range(1000, 1020)]
    for txid, rows in (await stage.states()).items():
        assert rows == order[: len(rows)], f"TXID {txid} is a state that never was"


async def test_a_second_outage_while_the_difference_is_sent(stage: Stage) -> None:
    """The pin that the difference is read under is let go as well, when the bucket goes away once more.

    Seen to fail with the pin held until the upload had succeeded: the WAL grew without a bound.
    """
    stage.flags |= SMALL | {"safety_poll_interval": "50ms"}
    await stage.begin()
    stage.store.reachable = False
    for number in range(100, 400):
        stage.insert(number, size_bytes=8000)
        await asyncio.sleep(0)
    await stage.until("wal_let_go")
    stage.connection.wal_autocheckpoint(100)
    stage.store.shut = ("put_stream", "")
    stage.store.reachable = True
    await wait_until_async(lambda: stage.store.count("put_stream") >= 1, 20)
    sizes = []
    for number in range(1000, 2000):
        stage.insert(number, size_bytes=8000)
        if number % 10 == 0:
            await asyncio.sleep(0.02)
        sizes.append(wal_bytes(stage))
    assert sizes[-1] < 8 << 20, "the WAL grows without a bound"
    stage.store.shut = None
    await stage.sync(30)
    await stage.check_newest()


async def test_the_first_snapshot_in_an_outage(stage: Stage) -> None:
    """A WAL that outgrows the limit under the first snapshot is let go; later the present state is sent.

    Seen to fail with a limit on the WAL's whole length: a long WAL that nobody writes to any more ended each attempt
    as soon as it began, twenty times a second.
    """
    stage.flags |= SMALL
    stage.insert(*range(5))
    stage.store.shut = ("put", "/chunks/")
    await stage.start()
    for number in range(100, 700):
        stage.insert(number, size_bytes=8000)
        if number % 10 == 0:
            await asyncio.sleep(0.002)
    await wait_until_async(lambda: stage.found("snapshot_failed") or stage.found("continuity_lost"))
    stage.store.shut = None
    await stage.sync(30)
    await stage.check_newest()
    assert len(stage.found("snapshot_failed")) < 10


async def test_a_fault_of_ours_is_isolated(stage: Stage) -> None:
    """An unexpected error ends neither the process nor the following: the state is stored anew, and all is there."""
    await stage.begin()
    stage.store.defective = True
    stage.insert(2)
    await stage.until("fault_isolated")
    stage.store.defective = False
    stage.insert(3)
    await stage.until("snapshot_stored", 2)
    await stage.sync()
    await stage.check_newest()
    assert stage.metrics.errors["ZeroDivisionError"] >= 1


class Turned(SystemClock):
    """The system's clock, of which the wall time can be set."""

    turned_seconds = 0.0

    def now_ms(self) -> int:
        """Return the wall time as it was set."""
        return super().now_ms() + round(self.turned_seconds * 1000)


async def commit_times_ms(stage: Stage) -> list[int]:
    """Return the commit times of all transactions in segments, in order."""
    indexes = [decode(body, what=key) for key, body in (await stage.objects()).items() if parse_segment(key)]
    found = {transaction.txid: transaction.commit_ms for index in indexes for transaction in index.transactions}
    return [found[txid] for txid in sorted(found)]


async def test_the_clock_is_set(stage: Stage, tmp_path: Path) -> None:
    """TRAP: the wall clock jumps, while it runs and between two lives, also on another machine with another clock.

    Commit times never go backwards, nothing is missing, and a time between two commits still means the earlier one.
    Seen to fail with the newest stored time not taken over from an earlier life.
    """
    clock = Turned()
    stage.tools = replace(stage.tools, clock=clock)
    await stage.begin()
    for number, turned_seconds in enumerate((3600.0, -3600.0, -90_000.0, 7200.0), 2):
        clock.turned_seconds = turned_seconds
        stage.insert(number)
        await stage.sync()
    await stage.stop()
    stage.lose_disk()
    clock.turned_seconds = -5 * 86_400.0  # the next machine's
    await stage.start()
    stage.insert(6)
    await stage.sync()
    stage.insert(7)
    await stage.sync()
    times = await commit_times_ms(stage)
    assert len(times) == 7
    assert times == sorted(times)
    assert [rows[-1] for rows in (await stage.states()).values()] == list(range(8))
    request = RestoreRequest(path=tmp_path / "restored.db", target=AtTime(times[3]))  # 7200 s ahead came right after it
    assert (await restore(stage.store, request)).txid == 5


async def test_lag_and_snapshots_do_not_go_by_the_wall_clock(stage: Stage) -> None:
    """A clock that is set back or forth makes no snapshot due, and no lag of an hour out of one of a moment."""
    clock = Turned()
    stage.tools = replace(stage.tools, clock=clock)
    stage.flags |= {"snapshot_interval": "1h"}
    await stage.begin()
    for number, turned_seconds in enumerate((86_400.0, -86_400.0), 2):
        clock.turned_seconds = turned_seconds
        stage.insert(number)
        await stage.sync()
        assert stage.follower.following.ledger.lag_seconds(clock.now_ms()) == 0
    stage.insert(10)
    await stage.sync()
    assert len(stage.found("snapshot_stored")) == 1
