"""Objects asked for before the plan is made: a round trip less, no request more, and no harm when it was wrong."""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from replicad.errors import StoreUnreachable
from replicad.host.threads import Threads
from replicad.restore.fetch import Fetch
from replicad.restore.request import Limits, RestoreRequest
from replicad.restore.restore import estimate, restore
from replicad.store.memory import MemoryStore
from tests.unit.restore.conftest import stored

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.recorder import Recorder

PATIENCE_SECONDS = 20


class Noting(MemoryStore):
    """Remembers GETs, in order; answers some of them only when it is told to."""

    def __init__(self) -> None:
        super().__init__("bucket/app.db")
        self.gets: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}  # by a part of the key
        self.cancelled: list[str] = []
        self.cancelled_first: list[str] | None = None  # before the first chunk was asked for
        self.asked = asyncio.Condition()

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """Return an object, once its gate is open."""
        self.gets.append(key)
        if "chunks/" in key and self.cancelled_first is None:
            self.cancelled_first = list(self.cancelled)
        async with self.asked:
            self.asked.notify_all()
        try:
            for part, gate in self.gates.items():
                if part in key:
                    await gate.wait()
        except asyncio.CancelledError:
            self.cancelled.append(key)
            raise
        return await super().get(key, start=start, stop=stop)

    async def until(self, *parts: str) -> None:
        """Wait until there was a GET of each of these, whatever else there was."""
        async with asyncio.timeout(PATIENCE_SECONDS), self.asked:
            await self.asked.wait_for(lambda: all(any(part in key for key in self.gets) for part in parts))


@pytest.fixture
def store() -> Noting:
    """Return an empty store."""
    return Noting()


@pytest.fixture
async def threads() -> AsyncIterator[Threads]:
    """Return a thread."""
    found = Threads("test", 1)
    yield found
    await found.close()


async def test_manifest_and_segments_are_asked_for_beside_the_starts(
    recorder: Recorder, store: Noting, tmp_path: Path
) -> None:
    """All that is opened first is on its way while no start has come; nothing is asked for twice.

    Seen to fail without `Planner._foresee`.
    """
    await stored(recorder, store)
    store.gates["start.json"] = asyncio.Event()
    restoring = asyncio.create_task(restore(store, RestoreRequest(path=tmp_path / "new.db")))
    await store.until("start.json", "snapshots/0000000000000004", "log/0000000000000006", "log/0000000000000003")
    assert not restoring.done()
    store.gates["start.json"].set()
    restored = await restoring
    assert (tmp_path / "new.db").read_bytes() == recorder.transactions[7].database
    assert len(store.gets) == len(set(store.gets))
    beside = sum("start.json" in key for key in store.gets)
    assert restored.requests == len(store.gets) - beside, "they are counted as all others"


async def test_a_wrong_guess_is_let_go_of(recorder: Recorder, store: Noting, tmp_path: Path) -> None:
    """The starts say that an orphaned tail was none of the line's: what was asked for of it is not waited for."""
    await stored(recorder, store)
    fork = recorder.fork(tmp_path / "fork.db", 5, epoch=2)
    with fork:
        fork.fill(20)
        await fork.start(store, parent=1, txid=5)
        await fork.snapshot(store, 6)
        store.gates["log/0000000000000006"] = asyncio.Event()  # of the tail; by its key alone it leads to the end
        restored = await asyncio.wait_for(restore(store, RestoreRequest(path=tmp_path / "new.db")), PATIENCE_SECONDS)
        assert (restored.epoch, restored.txid) == (2, 6)
        assert (tmp_path / "new.db").read_bytes() == fork.transactions[6].database
    assert [key for key in store.gets if "log/0000000000000006" in key] == store.cancelled_first != []


@pytest.mark.parametrize(("stands", "share"), [(False, 8), (True, 4)])
async def test_no_more_than_its_share_of_the_memory(
    recorder: Recorder, store: Noting, tmp_path: Path, *, stands: bool, share: int
) -> None:
    """With little memory, what does not fit is asked for when its turn comes.

    Where a file may be changed where it stands, segments are kept until it is: their share is larger.
    """
    await stored(recorder, store)
    sizes = {found.key: found.size_bytes async for found in store.list("epochs/")}
    newest = next(key for key in sizes if "log/0000000000000006" in key)
    manifest = next(key for key in sizes if "snapshots/0000000000000004" in key)
    room_bytes = sizes[newest] + sizes[manifest]
    for share_bytes, expected in ((room_bytes, {manifest, newest}), (room_bytes - 1, {manifest}), (0, set())):
        store.gets.clear()
        store.gates["start.json"] = asyncio.Event()
        path = tmp_path / f"{share_bytes}.db"
        if stands:
            path.write_bytes(recorder.transactions[1].database)
        request = RestoreRequest(path=path, force=stands, limits=Limits(memory_bytes=share * share_bytes))
        restoring = asyncio.create_task(restore(store, request))
        await store.until("start.json")
        await asyncio.sleep(0.05)  # whatever else would be asked for, would be by now
        assert {key for key in store.gets if "start.json" not in key} == expected
        store.gates["start.json"].set()
        restoring.cancel()
        await asyncio.wait([restoring])


async def test_an_estimate_asks_for_nothing_that_it_does_not_read(recorder: Recorder, store: Noting) -> None:
    """It reads a manifest and an index; the bytes of all other segments would be for nothing."""
    await stored(recorder, store)
    await estimate(store, RestoreRequest(path="unused"))  # type: ignore[arg-type]  # nothing is written
    assert sum("log/" in key for key in store.gets) == 1


async def test_nothing_is_left_behind(recorder: Recorder, store: Noting, tmp_path: Path) -> None:
    """A restore that is cancelled while it waits for the starts takes its requests with it."""
    await stored(recorder, store)
    store.gates[""] = asyncio.Event()
    before = asyncio.all_tasks()
    restoring = asyncio.create_task(restore(store, RestoreRequest(path=tmp_path / "new.db")))
    await store.until("start.json", "log/0000000000000006")
    restoring.cancel()
    await asyncio.wait([restoring], timeout=PATIENCE_SECONDS)
    assert restoring.cancelled()
    assert asyncio.all_tasks() == before
    assert sorted(store.cancelled) == sorted(store.gets)


async def test_a_foreseen_object_that_is_damaged_is_looked_at_twice(
    recorder: Recorder, store: Noting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte that flipped on the way, once: as with any other, the second answer counts."""
    await stored(recorder, store)
    real, garbled = MemoryStore.get, []

    async def get(self: MemoryStore, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        body = await real(self, key, start=start, stop=stop)
        if ("log/" in key or "snapshots/" in key) and key not in garbled:
            garbled.append(key)
            return body[:-1] + bytes([body[-1] ^ 1])
        return body

    monkeypatch.setattr(MemoryStore, "get", get)
    await restore(store, RestoreRequest(path=tmp_path / "new.db"))
    assert (tmp_path / "new.db").read_bytes() == recorder.transactions[7].database
    assert all(store.gets.count(key) == 2 for key in garbled)
    assert len(garbled) > 2


async def test_an_error_is_the_readers_or_nobodys(threads: Threads) -> None:
    """Who reads gets it; of what nobody reads, nobody hears, also not when it is thrown away by the collector."""

    class Away(MemoryStore):
        async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
            if key == "b":  # it fails when it is let go of
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(PATIENCE_SECONDS)
            raise StoreUnreachable(store="here", operation=f"get {key}", found=f"{start} {stop}")

    heard: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
    fetch = Fetch(Away(), threads, concurrency=2)
    fetch.foresee(["a", "b", "a"])
    with pytest.raises(StoreUnreachable):
        await fetch.read("a")
    assert fetch.requests == 2
    await fetch.forget()
    gc.collect()
    await asyncio.sleep(0)
    assert heard == []


async def test_a_part_of_a_foreseen_object_is_read_by_itself(threads: Threads) -> None:
    """Only who wants all of it gets what was asked for."""
    store = Noting()
    await store.put("a", b"0123456789")
    fetch = Fetch(store, threads, concurrency=2)
    fetch.foresee(["a"])
    assert await fetch.read("a", start=2, stop=4) == b"23"
    assert await fetch.read("a") == b"0123456789"
    assert store.gets == ["a", "a"]
    assert await fetch.read("a") == b"0123456789"
    assert store.gets == ["a", "a", "a"], "it is given out once"
    await fetch.forget()
