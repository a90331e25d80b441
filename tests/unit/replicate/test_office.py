"""Owning one database: two instances, one store, and what becomes of either."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from replicad.errors import AlreadyRunning, OwnedByAnother, StoreUnreachable
from replicad.layout import claim_key, end_key, epoch_prefix, handover_key, start_key
from replicad.ownership.records import decode_end, decode_start
from replicad.position import NO_WAL, Epoch
from replicad.replicate.following import record_state
from replicad.replicate.standing import Standing
from replicad.replicate.state_file import read_state
from replicad.store.memory import MemoryStore
from tests.support.scene import rows_of
from tests.support.waiting import wait_until_async
from tests.unit.replicate.conftest import COMPANIONS, Gate, Stage
from tests.unit.replicate.test_freeze import can_write

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from replicad.replicate.office import Office


class Stopped:
    """An application that can be stopped."""

    def __init__(self, stage: Stage) -> None:
        self.times = 0
        stage.stop_application = self.stop

    async def stop(self) -> None:
        """Take note of it."""
        self.times += 1


@pytest.fixture
async def other(stage: Stage, tmp_path: Path) -> AsyncIterator[Stage]:
    """A second instance: its own disk and network, the same store."""
    folder = tmp_path / "other"
    await asyncio.to_thread(folder.mkdir)
    found = Stage(folder / "app.db", stage.tools, [])
    found.lines = stage.lines
    found.store = Gate(stage.store.store)
    yield found
    await found.stop()
    found.close()


def office(stage: Stage) -> Office:
    """Return the office that runs on a stage."""
    assert stage.office is not None
    return stage.office


async def until_standing(stage: Stage, standing: Standing) -> None:
    """Wait until an instance is this to the database."""
    await wait_until_async(lambda: office(stage).standing is standing)


async def owning(stage: Stage) -> None:
    """Bring an instance to where it owns the database and has stored two rows."""
    stage.insert(0)
    await stage.serve()
    await stage.until("snapshot_stored")
    stage.insert(1)
    await stage.sync()


async def exists(stage: Stage, key: str) -> bool:
    """Return whether an object is stored."""
    return key in await stage.objects()


async def folder(stage: Stage, epoch: int) -> dict[str, bytes]:
    """Return what is stored of an epoch."""
    return {key: body for key, body in (await stage.objects()).items() if key.startswith(epoch_prefix(Epoch(epoch)))}


async def copy_disk(stage: Stage, other: Stage) -> None:
    """Give the other instance a copy of what lies on the disk."""

    def copy() -> None:
        for companion in COMPANIONS:
            with suppress(FileNotFoundError):
                shutil.copy(f"{stage.path}{companion}", f"{other.path}{companion}")
        Path(f"{other.path}-shm").unlink(missing_ok=True)

    await stage.tools.threads.run(copy)


# --- a handover --------------------------------------------------------------------------------------


async def test_a_newcomer_takes_over(stage: Stage, other: Stage) -> None:
    """The owner ends its epoch with all that was committed, the newcomer goes on exactly there; nothing is lost."""
    await owning(stage)
    stage.insert(2)
    await other.serve()
    await until_standing(stage, Standing.RETIRED)
    assert office(other).standing is Standing.OWNER
    end = decode_end(await stage.store.get(end_key(Epoch(1))), what="end")
    start = decode_start(await stage.store.get(start_key(Epoch(2))), what="start")
    assert start.position == end.position
    assert rows_of(other.path) == [0, 1, 2]
    assert not can_write(stage)
    assert [n for (n,) in stage.connection.execute("SELECT n FROM t")] == [0, 1, 2]
    assert can_write(other)
    other.insert(3)
    await other.sync()
    assert list((await other.states()).values())[-1] == [0, 1, 2, 3]
    assert (stage.metrics.owner, other.metrics.owner) == (False, True)
    assert dict(stage.metrics.handovers) == {"handed_over": 1}
    assert (stage.metrics.fenced, other.metrics.fenced) == (0, 0)
    assert not stage.found("owner_silent")


async def test_the_retired_one_stores_nothing_more(stage: Stage, other: Stage) -> None:
    """Its flush has nothing to do, and no second end is stored; its writers wait until it is gone."""
    await owning(stage)
    await other.serve()
    await until_standing(stage, Standing.RETIRED)
    before = await folder(stage, 1)
    await office(stage).flush()
    await office(stage).end()
    assert await folder(stage, 1) == before


async def test_a_snapshot_under_way_does_not_take_the_successor_for_an_intruder(stage: Stage, other: Stage) -> None:
    """A snapshot whose manifest arrives behind the successor's claim counts for nothing, and nobody is fenced.

    Seen to fail (fenced, in the middle of a handover) without the look at `retiring` in `Tenure.still_owned`.
    """
    assert isinstance(stage.store.store, MemoryStore)
    stored = stage.store.store._objects

    class Late(Gate):
        """Keeps a manifest back until the next epoch is claimed."""

        holds = arrived = False

        async def put(self, key: str, body: bytes) -> None:
            if self.holds and "/snapshots/" in key:
                await wait_until_async(lambda: stored.keys() & {claim_key(Epoch(2))})
            await super().put(key, body)
            self.arrived = self.arrived or self.holds

    stage.flags["handover_poll_interval"] = other.flags["handover_poll_interval"] = "500ms"
    stage.store = late = Late(stage.store.store)
    await owning(stage)
    late.holds = True
    stage.insert(2)
    snapshot = asyncio.create_task(stage.follower.snapshot("command"))
    await other.serve()
    await wait_until_async(lambda: late.arrived)
    await until_standing(stage, Standing.RETIRED)
    looked = len(late.calls)
    confirming = asyncio.create_task(stage.follower.following.shipper.confirm())
    await wait_until_async(lambda: any(call.key == claim_key(Epoch(2)) for call in late.calls[looked:]))
    assert office(stage).standing is Standing.RETIRED
    assert (stage.found("fenced"), stage.metrics.fenced) == ([], 0)
    for task in (snapshot, confirming):
        assert not task.done()
        task.cancel()
    await asyncio.gather(snapshot, confirming, return_exceptions=True)


async def test_the_application_is_stopped_for_a_handover(stage: Stage, other: Stage) -> None:
    """With `on_handover: stop` the application is ended before the rest is stored."""
    stage.flags |= {"on_handover": "stop"}
    stopped = Stopped(stage)
    await owning(stage)
    await other.serve()
    await until_standing(stage, Standing.RETIRED)
    assert stopped.times == 1


async def test_a_newcomer_that_dies_before_its_claim(stage: Stage, other: Stage) -> None:
    """The owner has frozen and ended; when nobody claims it goes on in the next epoch, and its writers with it."""
    await owning(stage)
    other.store.shut = ("create", "claims/")
    other.flags |= {"boot_timeout": "1m"}
    booting = asyncio.create_task(other.boot())
    await wait_until_async(lambda: stage.store.count("put", end_key(Epoch(1))))
    assert not can_write(stage)
    booting.cancel()
    await asyncio.gather(booting, return_exceptions=True)
    await stage.until("reclaimed")
    await until_standing(stage, Standing.OWNER)
    await wait_until_async(lambda: can_write(stage))
    stage.insert(2)
    await wait_until_async(lambda: stage.follower.capturing)
    await stage.sync()
    assert list((await stage.states()).values())[-1] == [0, 1, 2]
    assert stage.metrics.epoch == 2
    assert dict(stage.metrics.handovers) == {"reclaimed": 1}
    assert stage.metrics.frozen.count == 1


async def test_a_newcomer_that_dies_between_claim_and_start(stage: Stage, other: Stage) -> None:
    """The owner handed over, and nobody began: it claims the epoch behind, and its writers go on."""
    await owning(stage)
    other.store.shut = ("put", "start.json")
    with pytest.raises(StoreUnreachable):
        await other.boot()
    await stage.until("reclaimed")
    await until_standing(stage, Standing.OWNER)
    await wait_until_async(lambda: stage.follower.capturing and can_write(stage))
    stage.insert(2)
    await stage.sync()
    assert stage.metrics.epoch == 3
    start = decode_start(await stage.store.get(start_key(Epoch(3))), what="start")
    assert start.parent_epoch == 1


async def test_taking_over_from_one_that_puts_its_claim_off(stage: Stage, other: Stage) -> None:
    """A restarted owner that has stored nothing yet is asked as well: it claims because it is asked, and hands over."""
    await stage.begin()
    await stage.stop()
    await stage.serve()
    assert not await exists(stage, claim_key(Epoch(2)))
    await other.serve()
    await until_standing(stage, Standing.RETIRED)
    assert stage.metrics.fenced == other.metrics.fenced == 0
    assert not stage.found("owner_silent")
    assert other.metrics.epoch == 3
    assert rows_of(other.path) == [0, 1]


# --- an owner that does not answer -------------------------------------------------------------------


async def test_a_silent_owner(stage: Stage, other: Stage) -> None:
    """An owner without a sign of life is not waited for; what it had reported is there, what it writes then is not."""
    await stage.begin()  # follows, and looks for no request
    durable = stage.follower.following.ledger.durable.txid
    await other.serve()
    assert stage.found("owner_silent")
    before = await folder(stage, 1)
    stage.insert(2)
    await wait_until_async(stage.follower.following.tenure.lost.is_set)
    stage.insert(3)
    assert stage.follower.following.ledger.durable.txid == durable
    assert rows_of(other.path) == [0, 1]
    late = set(await folder(stage, 1)) - set(before)
    assert len(late) <= 1  # under way when it looked; an orphaned tail
    other.insert(4)
    await other.sync()
    assert list((await other.states()).values())[-1] == [0, 1, 4]


async def fence(stage: Stage, other: Stage) -> None:
    """Have the other instance claim without the owner's leave, and the owner find out by its next upload."""
    await owning(stage)
    stage.store.shut = ("get", "handover/")
    await other.serve()
    stage.insert(2)
    await until_standing(stage, Standing.FENCED)


async def test_a_fenced_owner_freezes_its_writers(stage: Stage, other: Stage) -> None:
    """It reports nothing more, keeps its writers out, lets readers go on, and says at its end what was not seen."""
    await fence(stage, other)
    ledger = stage.follower.following.ledger
    await wait_until_async(lambda: not can_write(stage))
    assert (ledger.captured.txid, ledger.durable.txid) == (3, 2)
    assert [n for (n,) in stage.connection.execute("SELECT n FROM t")] == [0, 1, 2]
    assert (stage.metrics.fenced, stage.metrics.owner) == (1, False)
    with pytest.raises(OwnedByAnother, match="1 transactions"):
        await office(stage).flush()
    await office(stage).end()
    assert not await exists(stage, end_key(Epoch(1)))


async def test_a_fenced_owner_stops_its_application(stage: Stage, other: Stage) -> None:
    """With `when_fenced: stop` the application is ended instead, and the instance ends with that error."""
    stage.flags |= {"when_fenced": "stop"}
    stopped = Stopped(stage)
    await fence(stage, other)
    await wait_until_async(lambda: stopped.times)
    assert can_write(stage)  # nobody is left who would
    with pytest.raises(OwnedByAnother):
        await office(stage).flush()


# --- the same disk, and copies of it -------------------------------------------------------------------


async def test_a_restart_stores_nothing(stage: Stage) -> None:
    """An instance that comes back to its own disk with nothing new stores nothing, and asks nobody."""
    await owning(stage)
    await stage.stop()
    before = await stage.objects()
    await stage.serve()
    asked = len(stage.store.calls)
    await wait_until_async(lambda: stage.store.count("get", handover_key(Epoch(2))) >= 3)
    assert await stage.objects() == before
    assert {(call.verb, call.key) for call in stage.store.calls[asked:]} == {("get", handover_key(Epoch(2)))}
    assert office(stage).standing is Standing.OWNER
    stage.insert(2)
    await stage.sync()
    assert {key for key in await stage.objects() if key not in before} >= {claim_key(Epoch(2)), start_key(Epoch(2))}
    assert await folder(stage, 1) == {key: body for key, body in before.items() if key in await folder(stage, 1)}
    assert list((await stage.states()).values())[-1] == [0, 1, 2]


async def test_two_copies_of_a_disk(stage: Stage, other: Stage) -> None:
    """Of two that start from one state file the first who stores something owns; the other one never writes there.

    Nor does it claim behind the winner, who has nothing to answer. Seen to fail while the loser stood by behind the
    epoch that it had not got: it claimed the next one, and stored its own state over the winner's.
    """
    await stage.begin()
    await stage.stop()
    stage.close()
    await copy_disk(stage, other)
    await stage.serve()
    await other.serve()
    assert office(stage).standing is office(other).standing is Standing.OWNER
    stage.insert(2)
    await stage.sync()
    before = await folder(stage, 2)
    other.insert(3)
    await until_standing(other, Standing.FENCED)
    await wait_until_async(lambda: not can_write(other))
    looked = stage.store.count("get", handover_key(Epoch(3)))
    await wait_until_async(lambda: stage.store.count("get", handover_key(Epoch(3))) > looked + 15)  # handover_timeout
    assert not await exists(stage, claim_key(Epoch(3)))
    assert await folder(stage, 2) == before
    stage.insert(4)
    await stage.sync()
    assert list((await stage.states()).values())[-1] == [0, 1, 2, 4]


async def test_a_copy_of_a_disk_that_is_in_use(stage: Stage, other: Stage) -> None:
    """A copy whose original has gone on since is not the newest state: it begins nothing, and gives up.

    Seen to fail while it went on in the epoch behind its claim: what the original had reported was overwritten.
    """
    stopped = Stopped(other)
    await stage.begin()
    await copy_disk(stage, other)
    await other.serve()
    stage.insert(2)
    await stage.sync()
    other.insert(3)
    await until_standing(other, Standing.FENCED)
    await wait_until_async(lambda: stopped.times)
    assert office(other).standing is Standing.FENCED
    assert await folder(stage, 2) == await folder(stage, 3) == {}
    assert list((await stage.states()).values())[-1] == [0, 1, 2]
    position = replace(stage.follower.durable_position(), epoch=Epoch(2))
    await record_state(other.follower.following, position, NO_WAL)
    state = await stage.tools.threads.run(read_state, other.path)
    assert state is not None
    assert state.epoch == 1  # it never says that it owned more


async def test_a_second_instance_beside_the_first(stage: Stage) -> None:
    """Two processes on one file: the second one is refused, and asks the store for nothing."""
    await owning(stage)
    second = Stage(stage.path, stage.tools, [])
    second.lines = stage.lines
    with pytest.raises(AlreadyRunning):
        await second.boot()
    assert not second.store.calls


# --- a store that is away ----------------------------------------------------------------------------


async def test_an_unreachable_store_is_waited_for(stage: Stage) -> None:
    """A start waits for the store up to `boot_timeout`, and fails then; nothing was decided."""
    stage.store.reachable = False
    stage.flags |= {"boot_timeout": "1s"}
    began = stage.tools.clock.monotonic()
    with pytest.raises(StoreUnreachable):
        await stage.boot()
    assert stage.tools.clock.monotonic() - began >= 1
    assert not await stage.tools.threads.run(stage.path.exists)
    stage.store.reachable = True
    assert (await stage.boot()).booted.first_start


async def test_a_store_that_comes_back_in_time(stage: Stage) -> None:
    """A start goes on where it was when the store answers within `boot_timeout`, with one claim and one start."""
    stage.flags |= {"boot_timeout": "1m"}
    stage.store.shut = ("put", "start.json")
    booting = asyncio.create_task(stage.boot())
    await wait_until_async(lambda: stage.store.count("put", "start.json") >= 2)
    stage.store.shut = None
    assert (await booting).booted.first_start
    assert {key for key in await stage.objects() if not key.startswith("handover/")} == {
        claim_key(Epoch(1)),
        start_key(Epoch(1)),
    }


async def test_an_application_that_is_busy_at_the_start(stage: Stage) -> None:
    """A start beside an application that holds its database for a while waits for it, and does not end.

    Seen to fail: on a busy machine a restarted sidecar ended with an error, and was started again, for ever.
    """
    stage.flags |= {"boot_timeout": "1m"}
    stage.insert(1)
    stage.connection.pragma("locking_mode", "exclusive")
    stage.insert(2)
    booting = asyncio.create_task(stage.boot())
    await wait_until_async(lambda: bool(stage.found("database_unusable")), 30)
    stage.close()
    assert not (await booting).booted.first_start
