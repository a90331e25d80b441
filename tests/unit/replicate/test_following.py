"""What the loops around one database share: turns on the capture, the state file, waiting."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from replicad.position import NO_WAL, TXID, Epoch, Position
from replicad.replicate.following import Turn, record_state, wait_for
from replicad.replicate.state_file import read_state, state_path
from tests.support.waiting import wait_until_async

if TYPE_CHECKING:
    from replicad.replicate.capture import Capture
    from tests.unit.replicate.conftest import Stage

POSITION = Position(epoch=Epoch(1), txid=TXID(7), checksum=0xFEED, pages=9)


async def turn_of(stage: Stage) -> Turn:
    """Return a turn on nothing: what is taken here does not use the capture."""
    stage.insert(1)
    followed = await stage.boot()
    capture: Capture = None  # type: ignore[assignment]
    return Turn(followed.follower.following.tools.threads, capture, used=lambda: None)


async def test_one_at_a_time(stage: Stage) -> None:
    """Calls come one after another, whatever threads there are, and give what their function returns."""
    turn = await turn_of(stage)
    under_way: list[int] = []

    def work(number: int) -> int:
        under_way.append(number)
        assert under_way == [number]
        under_way.remove(number)
        return number

    assert await asyncio.gather(*(turn.take(work, number) for number in range(50))) == list(range(50))


async def test_nobody_reads_while_the_wal_is_let_go(stage: Stage) -> None:
    """Who waited for the lock while the WAL was let go goes on waiting until it is held again.

    Seen to fail with one look before the lock, and none behind it.
    """
    turn = await turn_of(stage)
    entered = asyncio.Event()

    async def read() -> None:
        async with turn.while_reading():
            entered.set()

    async with turn.lock:
        reading = asyncio.create_task(read())
        await asyncio.sleep(0)  # it waits for the lock now
        turn.reading.clear()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not entered.is_set()
    assert not turn.lock.locked(), "who waits for reading keeps nobody from writing"
    turn.reading.set()
    await asyncio.wait_for(reading, 5)
    assert entered.is_set()


async def test_a_state_that_cannot_be_written(stage: Stage) -> None:
    """TRAP: where replicad itself cannot write (a full disk, no permission) it says so, counts it and goes on.

    The older state is as true. Seen to fail with the error passed on.
    """
    stage.insert(1)
    following = (await stage.boot()).follower.following
    await record_state(following, POSITION, NO_WAL)
    found = await asyncio.to_thread(read_state, stage.path)
    assert found is not None
    assert found.position == POSITION
    assert found.claim_id == following.lineage.claim_id
    state_path(stage.path).unlink()
    state_path(stage.path).mkdir()
    await record_state(following, POSITION, NO_WAL)
    (line,) = stage.found("state_not_written")
    assert "app.db-replicad" in line["error"]
    assert stage.metrics.errors["FileUnusable"] == 1


async def test_waiting_for_an_event() -> None:
    """An event that is set is not waited for, one that comes ends the wait, and the time over is no error."""
    event = asyncio.Event()
    await wait_for(event, 0.0)
    await wait_for(event, 0.01)
    waiting = asyncio.create_task(wait_for(event, 60))
    await asyncio.sleep(0)
    event.set()
    await wait_until_async(waiting.done)
    await asyncio.wait_for(wait_for(event, 60), 5)
