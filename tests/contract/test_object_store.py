"""What every object store must do; one suite over all of them."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from replicad.errors import ObjectExists, ObjectMissing
from replicad.store.create import create_settled, probe_conditional_writes
from replicad.store.into import Rooms, read_into
from replicad.store.prefixed import PrefixedStore
from tests.contract.conftest import ENCRYPTED, LIARS, STORES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from replicad.store.protocol import ObjectStore

ODD_KEYS = (
    "with space/a b",
    "plus+and%20percent%",
    "amp&eq=question?hash#",
    "quote'double\"<tag>",
    "umlaut-ü-日本-🦆",
    "semi;colon:comma,at@",
    "tilde~paren()[]{}",
    "UPPER/lower",
)


async def _keys(store: ObjectStore, prefix: str = "", *, after: str = "") -> list[str]:
    return [row.key async for row in store.list(prefix, after=after)]


async def _pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        await asyncio.sleep(0)
        yield piece


pytestmark = pytest.mark.timeout(120, func_only=True)  # one of the servers may have to be built first, once

honest_stores = pytest.mark.parametrize("kind", [kind for kind in STORES if kind not in LIARS], indirect=True)
"""For tests of creates: a store that ignores conditional writes cannot pass; `test_probe` finds it out."""


async def test_put_then_get(store: ObjectStore) -> None:
    """What was put is what is got, at all sizes around the limits of packets, pieces and bodies."""
    for size_bytes in (0, 1, 65_535, 65_536, 65_537, 300_000, 1_500_000):
        body = os.urandom(size_bytes)
        await store.put(f"sizes/{size_bytes}", body)
        assert await store.get(f"sizes/{size_bytes}") == body


async def test_get_into_rooms(store: ObjectStore) -> None:
    """What is read into memory that is used again is the same, at all sizes, several at once."""
    rooms = Rooms(400_000, 2)
    sent = {f"sizes/{size_bytes}": os.urandom(size_bytes) for size_bytes in (0, 1, 65_537, 300_000, 400_000, 400_001)}
    for key, body in sent.items():
        await store.put(key, body)

    async def read(key: str) -> bool:
        found = await read_into(store, key, rooms)
        await asyncio.sleep(0.01)
        same = found == sent[key]
        rooms.give_back(found)
        return same

    assert all(await asyncio.gather(*(read(key) for key in (*sent, *reversed(sent)))))
    with pytest.raises(ObjectMissing, match="missing"):
        await read_into(store, "sizes/missing", rooms)


async def test_put_twice(store: ObjectStore) -> None:
    """A put is safe to repeat: the same bytes are there once."""
    await store.put("a/b", b"same")
    await store.put("a/b", b"same")
    assert await store.get("a/b") == b"same"
    assert await _keys(store) == ["a/b"]


async def test_get_of_nothing(store: ObjectStore) -> None:
    """A key that was never written is ObjectMissing and names the key."""
    await store.put("a/b", b"x")
    for key in ("missing", "a/missing", "a/b/c"):
        with pytest.raises(ObjectMissing, match=key):
            await store.get(key)


async def test_ranges(store: ObjectStore) -> None:
    """A range is the bytes [start, stop) that exist, also when the store answers with more than was asked for."""
    body = bytes(range(256)) * 4
    await store.put("object", body)
    size_bytes = len(body)
    for start, stop in ((0, 10), (10, 20), (1000, None), (0, size_bytes), (size_bytes - 1, size_bytes), (5, 6)):
        assert await store.get("object", start=start, stop=stop) == body[start:stop]
    assert await store.get("object", start=1000, stop=9999) == body[1000:]
    assert await store.get("object", start=size_bytes) == b""
    assert await store.get("object", start=size_bytes + 7, stop=size_bytes + 9) == b""
    assert await store.get("object", start=3, stop=3) == b""


async def test_ranges_of_an_empty_object(store: ObjectStore) -> None:
    """An empty object has an empty range from its first byte."""
    await store.put("empty", b"")
    assert await store.get("empty", start=0, stop=10) == b""


@honest_stores
async def test_create(store: ObjectStore) -> None:
    """The first create of a key succeeds, the second is ObjectExists and changes nothing."""
    await store.create("claims/1", b"first")
    with pytest.raises(ObjectExists, match="claims/1"):
        await store.create("claims/1", b"second")
    assert await store.get("claims/1") == b"first"


@honest_stores
async def test_create_after_put_and_after_delete(store: ObjectStore) -> None:
    """A create fails on a key that was put, and succeeds once the key is free again."""
    await store.put("key", b"put")
    with pytest.raises(ObjectExists):
        await store.create("key", b"created")
    await store.delete(["key"])
    await store.create("key", b"created")
    assert await store.get("key") == b"created"


@honest_stores
async def test_race_of_creates(store: ObjectStore) -> None:
    """Of many contenders for one key exactly one wins, and all agree who."""
    for race in range(5):
        bodies = [f"contender {number}".encode() for number in range(8)]
        won = await asyncio.gather(
            *(create_settled(store, f"race/{race}", body, is_mine=body.__eq__) for body in bodies)
        )
        assert won.count(True) == 1
        assert await store.get(f"race/{race}") == bodies[won.index(True)]


async def test_probe(store: ObjectStore, kind: str) -> None:
    """The probe tells the stores that honour If-None-Match from those that ignore it, and leaves nothing behind.

    Seen to fail: with `probe_conditional_writes` returning True after the first create, for rclone.
    """
    assert await probe_conditional_writes(store) is (kind not in LIARS)
    assert await _keys(store) == []


async def test_list_order_and_prefix(store: ObjectStore) -> None:
    """A listing is in key order, and holds exactly the keys that begin with the prefix."""
    keys = ["app-2/x", "app/a", "app/b/c", "app/b/d", "app2/a", "b", "app/b-1", "app.db/x"]
    for key in keys:
        await store.put(key, key.encode())
    assert await _keys(store) == sorted(keys)
    assert await _keys(store, "app/b") == ["app/b-1", "app/b/c", "app/b/d"]
    assert await _keys(store, "app/b/") == ["app/b/c", "app/b/d"]
    assert await _keys(store, "nothing/") == []


async def test_prefixes_that_are_prefixes_of_others(store: ObjectStore) -> None:
    """A database `app` never sees, reads or deletes the objects of `app2`.

    Seen to fail: with PrefixedStore given the prefix without its slash.
    """
    app, app2 = PrefixedStore(store, "app/"), PrefixedStore(store, "app2/")
    await app.put("x", b"of app")
    await app2.put("x", b"of app2")
    assert [row.key async for row in app.list("")] == ["x"]
    await app.delete(["x"])
    assert [row.key async for row in app.list("")] == []
    assert await app2.get("x") == b"of app2"
    with pytest.raises(ObjectMissing, match="app/x"):
        await app.get("x")


async def test_list_after(store: ObjectStore) -> None:
    """A listing goes on behind a given key, whether or not that key exists."""
    keys = [f"log/{number:03}" for number in range(0, 20, 2)]
    for key in keys:
        await store.put(key, b"")
    for after in ("", "log/", "log/006", "log/007", "log/018", "log/999", "zzz", "a"):
        assert await _keys(store, "log/", after=after) == [key for key in keys if key > after]


async def test_list_rows(store: ObjectStore) -> None:
    """A row has the object's size, and its time as an aware UTC datetime near now."""
    await store.put("sized", b"12345")
    rows = [row async for row in store.list("")]
    assert [(row.key, row.size_bytes) for row in rows] == [("sized", 5)]
    assert rows[0].modified_at.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - rows[0].modified_at) < timedelta(minutes=1)
    assert dataclasses.replace(rows[0], size_bytes=5) == rows[0]


async def test_keys_that_need_escaping(store: ObjectStore) -> None:
    """Spaces, quotes, percent and plus signs and letters of any script survive put, get, list and delete."""
    for key in ODD_KEYS:
        await store.put(key, key.encode())
    for key in ODD_KEYS:
        assert await store.get(key) == key.encode()
    assert await _keys(store) == sorted(ODD_KEYS)
    assert await _keys(store, "plus+", after="plus+and%") == ["plus+and%20percent%"]
    await store.delete(ODD_KEYS[:-1])
    assert await _keys(store) == [ODD_KEYS[-1]]


async def test_delete(store: ObjectStore) -> None:
    """Deleting takes away the named objects only; keys that are not there are no error; nothing is fine too."""
    for key in ("a/1", "a/2", "b/1"):
        await store.put(key, b"")
    await store.delete(["a/1", "a/none", "none"])
    assert await _keys(store) == ["a/2", "b/1"]
    await store.delete(["a/2"])
    await store.delete(["a/2"])
    await store.delete([])
    assert await _keys(store) == ["b/1"]


async def test_put_stream(store: ObjectStore) -> None:
    """A stream becomes one object, whether it is empty, short, a whole number of parts or not."""
    part_bytes = 5 << 20
    for size_bytes in (0, 10, part_bytes - 1, part_bytes, 2 * part_bytes, 2 * part_bytes + 17):
        body = os.urandom(size_bytes)
        cuts = [body[start : start + 999_999] for start in range(0, size_bytes, 999_999)]
        assert await store.put_stream(f"streams/{size_bytes}", _pieces(*cuts)) == size_bytes
        assert await store.get(f"streams/{size_bytes}") == body


async def test_put_stream_that_breaks(store: ObjectStore) -> None:
    """When the stream raises, its error comes through and no object appears, short or long."""

    async def breaking(size_bytes: int) -> AsyncIterator[bytes]:
        yield bytes(size_bytes)
        raise ValueError("the source broke")

    for size_bytes in (10, 11 << 20):
        with pytest.raises(ValueError, match="the source broke"):
            await store.put_stream("broken", breaking(size_bytes))
    assert await _keys(store) == []


async def test_many_operations_at_once(store: ObjectStore) -> None:
    """More operations than the store's concurrency all succeed."""
    await asyncio.gather(*(store.put(f"many/{number:03}", str(number).encode()) for number in range(20)))
    bodies = await asyncio.gather(*(store.get(f"many/{number:03}") for number in range(20)))
    assert bodies == [str(number).encode() for number in range(20)]
    assert len(await _keys(store, "many/")) == 20


async def test_url_names_the_store(store: ObjectStore, kind: str) -> None:
    """The URL for messages says which kind of store it is, and holds no secret."""
    scheme = {"memory": "memory://", "directory": "file://"}.get(kind.removeprefix(ENCRYPTED), "s3://")
    assert store.url.startswith(scheme)
    assert "secret" not in store.url
