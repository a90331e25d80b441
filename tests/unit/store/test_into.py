"""Objects read into memory that is used again: the same bytes, wherever they are put."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import IncompleteReadError

from replicad.encryption.sizes import MAGIC
from replicad.errors import ObjectMissing, StoreUnreachable, WrongKey
from replicad.store import into
from replicad.store.database import contents
from replicad.store.into import Held, Rooms, read_into
from replicad.store.memory import MemoryStore
from replicad.store.open import open_store
from replicad.store.prefixed import PrefixedStore
from replicad.store.s3 import _fill
from tests.support.fault_proxy import Cut, FaultProxy, Rule
from tests.unit.store.conftest import ONCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from replicad.store.protocol import ObjectStore
    from tests.support.moto_server import MotoServer

SIZES = (0, 1, 1_000, 300_000)
ROOM_BYTES = 200_000


class Bucket:
    """A database's part of a bucket."""

    def __init__(self, full: ObjectStore, direct: ObjectStore) -> None:
        self.put = PrefixedStore(full, "app.db/").put
        self.direct = contents(PrefixedStore(direct, "app.db/"), ())  # read without the SDK


@pytest.fixture
async def bucket(moto: MotoServer) -> AsyncIterator[Bucket]:
    """Return an empty one."""
    url = moto.new_bucket_url()
    full, direct = await open_store(url, ONCE), await open_store(url, ONCE, only_to_read=True)
    yield Bucket(full, direct)
    await full.close()
    await direct.close()


def room_of(body: bytes | memoryview) -> object:
    """Return where it stands."""
    return body.obj if isinstance(body, memoryview) else body


async def test_every_size(bucket: Bucket) -> None:
    """What does not fit into a room gets memory of its own; whatever comes is what was put."""
    rooms = Rooms(ROOM_BYTES, 3)
    for size_bytes in SIZES * 2:
        sent, key = os.urandom(size_bytes), f"x/{size_bytes}"
        await bucket.put(key, sent)
        body = await read_into(bucket.direct, key, rooms)
        assert body == sent
        rooms.give_back(body)
    with pytest.raises(ObjectMissing):
        await read_into(bucket.direct, "x/none", rooms)


async def test_rooms_are_used_again(bucket: Bucket) -> None:
    """As many as are taken at once; what one of them holds stays until it is given back."""
    sent = {f"x/{number}": os.urandom(1_000 + number) for number in range(6)}
    for key, body in sent.items():
        await bucket.put(key, body)
    rooms = Rooms(ROOM_BYTES, 3)
    seen: list[object] = []
    for begin in (0, 3):
        keys = list(sent)[begin : begin + 3]
        found = await asyncio.gather(*(read_into(bucket.direct, key, rooms) for key in keys))
        assert found == [sent[key] for key in keys]
        seen += map(room_of, found)
        for one in found:
            rooms.give_back(one)
    assert len({id(room) for room in seen}) == 3
    assert all(isinstance(room, bytearray) for room in seen)


async def test_other_stores_use_memory_of_their_own() -> None:
    """A store that cannot do it gives what it always does, and gets no room back."""
    store = MemoryStore()
    await store.put("a/b", b"content")
    rooms = Rooms(ROOM_BYTES, 3)
    for one in (store, PrefixedStore(store, "a/")):
        body = await read_into(one, "a/b" if one is store else "b", rooms)
        assert body == b"content"
        rooms.give_back(body)
    assert not rooms._free


@pytest.mark.parametrize("size_bytes", [ROOM_BYTES - 1, ROOM_BYTES, ROOM_BYTES + 1])
def test_only_what_is_a_room_comes_back(size_bytes: int) -> None:
    """Memory of another size, or somebody else's, is let go of."""
    rooms = Rooms(ROOM_BYTES, 3)
    body = rooms.take(size_bytes)
    assert len(body) == size_bytes
    rooms.give_back(body)
    assert len(rooms._free) == (size_bytes <= ROOM_BYTES)
    rooms.give_back(memoryview(bytes(ROOM_BYTES)))
    rooms.give_back(memoryview(bytearray(7)))
    assert len(rooms._free) == (size_bytes <= ROOM_BYTES)


def test_a_room_comes_back_once() -> None:
    """TRAP: a room that two objects stand in at the same time. Seen to fail when each `let_go` gives the room back."""
    rooms = Rooms(ROOM_BYTES, 3)
    held = Held(rooms.take(10), rooms)
    held.let_go()
    held.let_go()
    assert len(rooms._free) == 1
    assert held.body == b""
    assert rooms.take(5).obj is not rooms.take(5).obj


def test_when_all_rooms_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one waits until one is given back, but not for ever: then there is one more, and it stays."""
    monkeypatch.setattr(into, "_LONGEST_WAIT_SECONDS", 30.0)
    rooms = Rooms(ROOM_BYTES, 1)
    first = rooms.take(10)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(rooms.take, 20)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.05)
        rooms.give_back(first)
        second = waiting.result(timeout=30)
    assert second.obj is first.obj
    monkeypatch.setattr(into, "_LONGEST_WAIT_SECONDS", 0.01)
    third = rooms.take(10)
    assert third.obj is not second.obj
    for body in (second, third):
        rooms.give_back(body)
    monkeypatch.setattr(into, "_LONGEST_WAIT_SECONDS", 30.0)
    assert {id(rooms.take(1).obj), id(rooms.take(1).obj)} == {id(second.obj), id(third.obj)}


async def test_a_body_that_is_cut_off(moto: MotoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRAP: half a body is no object; and its room is there for the next one. Seen to fail with the room kept."""
    monkeypatch.setattr(into, "_LONGEST_WAIT_SECONDS", 60.0)
    async with FaultProxy("127.0.0.1", moto.port) as proxy:
        store = await open_store(moto.new_bucket_url(endpoint=proxy.endpoint), ONCE)
        sent, rooms = os.urandom(150_000), Rooms(ROOM_BYTES, 1)
        await store.put("key", sent)
        proxy.rules.append(Rule(method="GET", path="/key", times=1, cut=Cut.BODY))
        with pytest.raises(StoreUnreachable):
            await read_into(store, "key", rooms)
        async with asyncio.timeout(20):
            assert await read_into(store, "key", rooms) == sent
        await store.close()


class Stream:
    """A body that comes in pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)

    async def read(self, n_bytes: int) -> bytes:
        """Return the next one."""
        del n_bytes
        return self._pieces.pop(0) if self._pieces else b""


@pytest.mark.parametrize("pieces", [(b"12345",), (b"12345", b"678"), (b"123456", b"789"), (b"12345678901",), ()])
async def test_a_body_of_another_size_than_announced(pieces: tuple[bytes, ...]) -> None:
    """Too little and too much are no object: what unpacks on the way changes the size."""
    with pytest.raises(IncompleteReadError):
        await _fill(memoryview(bytearray(7)), Stream(*pieces))
    body = memoryview(bytearray(7))
    await _fill(body, Stream(b"1234", b"567"))
    assert bytes(body) == b"1234567"


async def test_what_is_encrypted_is_refused(bucket: Bucket) -> None:
    """TRAP: the content of an encrypted object taken for a chunk. Seen to fail without that look."""
    await bucket.put("x/secret", MAGIC + os.urandom(100))
    with pytest.raises(WrongKey):
        await read_into(bucket.direct, "x/secret", Rooms(ROOM_BYTES, 3))
