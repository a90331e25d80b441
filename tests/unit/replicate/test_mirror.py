"""A mirror beside a database that is followed: real SQLite, two stores that can fail."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from replicad.errors import NoSpace, StoreRefused
from replicad.layout import claim_key, handover_key
from replicad.plan.copying import is_history
from replicad.position import Epoch
from replicad.restore.request import RestoreRequest
from replicad.restore.restore import restore
from replicad.store.memory import MemoryStore
from tests.support.oracle import StoredHistory
from tests.support.scene import rows_of
from tests.support.waiting import wait_until_async
from tests.unit.mirror.conftest import history_of, objects, put_claim
from tests.unit.replicate.conftest import Gate

if TYPE_CHECKING:
    from pathlib import Path

    from replicad.replicate.mirror import Mirror
    from tests.unit.replicate.conftest import Stage


async def until_complete(mirror: Mirror) -> None:
    """Wait until the mirror has all."""
    await wait_until_async(lambda: mirror.status(0)["state"] == "complete" and not mirror.notes)


async def same(stage: Stage, there: Gate) -> bool:
    """Return whether both hold the same history, byte for byte."""
    return await history_of(stage.store.store) == await objects(there.store)


async def restored(store: MemoryStore | Gate, path: Path) -> list[int]:
    """Restore the last state; return its rows."""
    await restore(store, RestoreRequest(path=path, force=True))
    found: list[int] = await asyncio.to_thread(rows_of, path)
    return found


async def test_a_mirror_has_what_the_replica_has(stage: Stage, tmp_path: Path) -> None:
    """Everything that is durable is in the mirror a moment later, and can be restored from there."""
    there = Gate()
    mirror = stage.mirror(there)
    await stage.begin()
    for number in range(2, 30):
        stage.insert(number)
    await stage.sync()
    await until_complete(mirror)
    assert await same(stage, there)
    assert await restored(there, tmp_path / "restored.db") == list(range(30))
    assert mirror.status(0)["copied_txid"] == stage.follower.following.ledger.durable.txid


async def test_an_idle_mirror_asks_for_nothing(stage: Stage) -> None:
    """When all is copied no request is made, on either side, but for the look whether somebody wants the database.

    Seen to fail with a mirror that compares the listings again every second.
    """
    there = Gate()
    mirror = stage.mirror(there)
    await stage.begin()
    await until_complete(mirror)
    before, ours = len(there.calls), [call for call in stage.store.calls if call.key != handover_key(Epoch(2))]
    rounds = stage.tools.clock.monotonic() + 1.5
    await wait_until_async(lambda: stage.tools.clock.monotonic() > rounds)
    assert len(there.calls) == before
    assert [call for call in stage.store.calls if call.key != handover_key(Epoch(2))] == ours


async def test_a_mirror_that_is_away_holds_nothing_back(stage: Stage) -> None:
    """Commits become durable while the mirror is away; that is said once; when it is back it has all of them."""
    there = Gate()
    mirror = stage.mirror(there)
    await stage.begin()
    await until_complete(mirror)
    there.reachable = False
    for number in range(2, 12):
        stage.insert(number)
        await stage.sync(timeout_seconds=5)
    await wait_until_async(lambda: stage.metrics.mirror_errors[mirror.label] >= 2)
    assert len(stage.found("mirror_failed")) == 1
    assert stage.metrics.mirror_failing[mirror.label]
    assert mirror.lag_seconds(stage.tools.clock.now_ms() + 10_000) >= 10
    there.reachable = True
    await until_complete(mirror)
    await stage.until("mirror_recovered")
    assert await same(stage, there)
    assert not stage.metrics.mirror_failing[mirror.label]


async def test_a_slow_mirror_holds_nothing_back(stage: Stage) -> None:
    """While one object takes its time on the way to the mirror, commits become durable in the replica, many of them."""

    class Slow(Gate):
        gate = asyncio.Event()

        async def put(self, key: str, body: bytes) -> None:
            if "/log/" in key:
                await self.gate.wait()
            await super().put(key, body)

    there = Slow()
    mirror = stage.mirror(there)
    await stage.begin()
    for number in range(2, 20):
        stage.insert(number)
        await stage.sync(timeout_seconds=5)
    assert not any("/log/" in key for key in await objects(there.store))
    assert len(mirror.notes) >= 18
    there.gate.set()
    await until_complete(mirror)
    assert await same(stage, there)


async def test_two_mirrors_do_not_wait_for_each_other(stage: Stage) -> None:
    """One that is away does not keep the other from being complete."""
    away, there = Gate(), Gate()
    away.reachable = False
    stage.mirror(away)
    mirror = stage.mirror(there)
    await stage.begin()
    stage.insert(2)
    await stage.sync()
    await until_complete(mirror)
    assert await same(stage, there)
    assert await objects(away.store) == {}


async def test_too_much_for_the_memory_is_found_by_listing(stage: Stage) -> None:
    """A mirror that is away for longer than notes are kept compares both places, and then has all."""
    there = Gate()
    mirror = stage.mirror(there, limit=5)
    await stage.begin()
    await until_complete(mirror)
    there.reachable = False
    for number in range(2, 20):
        stage.insert(number)
        await stage.sync()
    assert (len(mirror.notes), mirror.notes.complete) == (0, False)
    there.reachable = True
    await until_complete(mirror)
    assert await same(stage, there)
    assert [line["objects"] for line in stage.found("mirror_caught_up")][-1] >= 18


async def test_a_restart_copies_what_was_missed(stage: Stage) -> None:
    """What was stored while there was no mirror, or after a crash, is found at the next start."""
    await stage.begin()
    await stage.stop()
    there = Gate()
    mirror = stage.mirror(there)
    stage.insert(2)
    await stage.start()
    await stage.sync()
    await until_complete(mirror)
    assert await same(stage, there)


async def test_at_every_object_the_mirror_can_be_restored_from(stage: Stage, tmp_path: Path) -> None:
    """Broken off behind each single object, in the order in which they arrived, it gives a state there was, exactly.

    And never one behind what it gave before.
    """

    class Recording(Gate):
        states: list[dict[str, bytes]]

        async def put(self, key: str, body: bytes) -> None:
            await super().put(key, body)
            self.states.append(await objects(self.store))

        async def create(self, key: str, body: bytes) -> None:
            await super().create(key, body)
            self.states.append(await objects(self.store))

    there = Recording()
    there.states = []
    mirror = stage.mirror(there)
    await stage.begin()
    for number in range(2, 10):
        stage.insert(number)
        await stage.sync()
        if number == 5:
            await stage.follower.snapshot("command")
    await until_complete(mirror)
    newest = 0
    for state in there.states:
        if not all(any(kind in key for key in state) for kind in ("/snapshots/", "/start.json")):
            assert newest == 0
            continue
        store = MemoryStore("broken-off")
        store._objects = {key: (body, there.store._now()) for key, body in state.items()}  # type: ignore[attr-defined]
        found = await restored(store, tmp_path / "restored.db")
        assert found == list(range(len(found)))
        assert len(found) >= newest
        newest = len(found)
        StoredHistory(state).newest()
    assert newest == 10


async def test_a_mirror_that_holds_something_else_is_left_alone(stage: Stage) -> None:
    """Another database's replica is refused, said once, and not asked about again while nothing is written."""
    there = Gate()
    await put_claim(there.store, 1, id="another")
    before = await objects(there.store)
    mirror = stage.mirror(there)
    await stage.begin()
    await stage.until("mirror_failed")
    await wait_until_async(lambda: mirror._refused_at is not None)
    assert await objects(there.store) == before
    assert len(stage.found("mirror_failed")) == 1
    assert stage.found("mirror_failed")[0]["kind"] == "OtherHistory"


async def test_wrong_credentials_and_a_full_disk_are_outages(stage: Stage) -> None:
    """A mirror that refuses, or has no room, is tried again, and complete when that is over."""

    class Broken(Gate):
        error: type[StoreRefused | NoSpace] | None = StoreRefused

        async def put(self, key: str, body: bytes) -> None:
            if self.error is StoreRefused:
                raise StoreRefused(store=self.url, operation=f"put {key}", found="AccessDenied")
            if self.error is NoSpace:
                raise NoSpace(path=self.url, needed_bytes=len(body), free_bytes=0)
            await super().put(key, body)

    there = Broken()
    mirror = stage.mirror(there)
    await stage.begin()
    await stage.until("mirror_failed")
    there.error = NoSpace
    errors = stage.metrics.mirror_errors[mirror.label]
    await wait_until_async(lambda: stage.metrics.mirror_errors[mirror.label] > errors)
    there.error = None
    await until_complete(mirror)
    assert await same(stage, there)


async def test_the_end_is_in_the_mirror(stage: Stage) -> None:
    """An orderly stop stores the end of the epoch, and the mirror has it too when it answers in time."""
    there = Gate()
    stage.mirror(there)
    stage.insert(0)
    await stage.serve()
    stage.insert(1)
    await stage.sync()
    assert stage.office is not None
    await stage.office.end()
    assert await same(stage, there)
    assert any(key.endswith("end.json") for key in await objects(there.store))


async def test_a_mirror_never_delays_the_end(stage: Stage) -> None:
    """With a mirror that is away, the end of the epoch is stored before it is waited for, and what it lacks is said."""
    there = Gate()
    stage.flags["mirror_timeout"] = "100ms"
    stage.mirror(there)
    stage.insert(0)
    await stage.serve()
    await stage.until("snapshot_stored")
    there.shut = ("put", "")
    stage.insert(1)
    await stage.sync()
    assert stage.office is not None
    await stage.office.end()
    assert any(key.endswith("end.json") for key in await objects(stage.store.store))
    (said,) = stage.found("mirror_behind")
    assert said["waiting"] or said["lag_seconds"]
    names = [line["event"] for line in stage.lines]
    assert names.index("epoch_ended") < names.index("mirror_behind")


async def test_the_claim_of_an_epoch_is_there_before_anything_else_of_it(stage: Stage) -> None:
    """A claim whose answer was lost leaves no note, and is in the mirror all the same, before the epoch's start."""

    class Ordered(Gate):
        order: list[str]

        async def put(self, key: str, body: bytes) -> None:
            await super().put(key, body)
            self.order.append(key)

        async def create(self, key: str, body: bytes) -> None:
            await super().create(key, body)
            self.order.append(key)

    there = Ordered()
    there.order = []
    mirror = stage.mirror(there)
    await stage.begin()
    await until_complete(mirror)
    await stage.stop()
    mirror.notes.on_stored("epochs/00000001/start.json", len(await stage.store.store.get("epochs/00000001/start.json")))
    mirror._claims.clear()
    there.order.clear()
    await there.store.delete([claim_key(Epoch(1))])
    await mirror.catch_up(_Anybody())
    assert there.order[0] == claim_key(Epoch(1))
    assert all(is_history(key) for key in there.order)


class _Anybody:
    async def until_durable(self, txid: int) -> None:
        """Return: all is."""

    async def may_delete(self) -> bool:
        """Return True: nobody else is there."""
        return True
