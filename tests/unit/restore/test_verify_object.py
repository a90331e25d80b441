from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from replicad import layout
from replicad.errors import Damaged, NewerFormat, ObjectMissing
from replicad.host.threads import Threads
from replicad.layout import KEYRING, ObjectKind, claim_key, kind_of
from replicad.ownership.records import Claim, encode_record
from replicad.plan.mark import Mark, encode_mark
from replicad.position import Epoch
from replicad.restore.fetch import Fetch
from replicad.restore.verify_object import UNREAD, Verified, verify_object
from replicad.segment import decode
from tests.support.recorder import DATABASE_ID
from tests.unit.restore.test_damage import BREAKAGES, spoil

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from replicad.store.memory import MemoryStore
    from tests.support.recorder import Recorder


@pytest.fixture
async def fetch(store: MemoryStore) -> AsyncIterator[Fetch]:
    """Return what reads the store."""
    threads = Threads("verify", 2)
    yield Fetch(store, threads, concurrency=2)
    await threads.close()


async def stored(store: MemoryStore, recorder: Recorder) -> dict[ObjectKind, str]:
    """Store one object of every kind; return their keys."""
    await recorder.start(store)
    await recorder.end(store, 7)
    claim = Claim(id="me", epoch=1, claimed_ms=1, instance="here")
    await store.put(claim_key(Epoch(1)), encode_record(claim))
    manifest = await recorder.snapshot(store, 1)
    segment = await recorder.segment(store, 2, 7, block_bytes=1 << 16)
    mark = Mark(txid=3, epoch=1, until_ms=9, made_ms=1, reason="a test")
    await store.put(str(mark.key), encode_mark(mark))
    chunk = next(key for key in store._objects if layout.parse_chunk(key))
    return {
        ObjectKind.CLAIM: claim_key(Epoch(1)),
        ObjectKind.START: layout.start_key(Epoch(1)),
        ObjectKind.END: layout.end_key(Epoch(1)),
        ObjectKind.MANIFEST: manifest,
        ObjectKind.SEGMENT: segment,
        ObjectKind.CHUNK: chunk,
        ObjectKind.MARK: str(mark.key),
    }


async def verified(fetch: Fetch, store: MemoryStore, key: str, *, listed_bytes: int | None = None) -> Verified:
    """Verify one object, as it is listed now."""
    size_bytes = len(store._objects[key][0]) if listed_bytes is None else listed_bytes
    return await verify_object(fetch, key, size_bytes, database_id=DATABASE_ID)


KINDS = [kind for kind in ObjectKind if kind not in UNREAD]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_sound_object(fetch: Fetch, store: MemoryStore, recorder: Recorder, kind: ObjectKind) -> None:
    """A sound object of any kind is verified, and recognised by its key."""
    keys = await stored(store, recorder)
    assert kind_of(keys[kind]) is kind
    assert (await verified(fetch, store, keys[kind])).kind is kind


@pytest.mark.parametrize(
    ("kind", "breakage"),
    [
        (kind, breakage)
        for kind in KINDS
        for breakage in BREAKAGES
        if breakage != "missing"
        # Over a claim, an end and a mark there is no hash: a flipped bit can lie in a field that is for people.
        and not (breakage == "one bit flipped" and kind in {ObjectKind.CLAIM, ObjectKind.END, ObjectKind.MARK})
    ],
)
async def test_a_broken_object(
    fetch: Fetch, store: MemoryStore, recorder: Recorder, kind: ObjectKind, breakage: str
) -> None:
    """An object of any kind that is cut, emptied, changed or added to is damaged, whatever its listed size."""
    keys = await stored(store, recorder)
    sound_bytes = len(store._objects[keys[kind]][0])
    spoil(store, keys[kind], breakage)
    for listed_bytes in (None, sound_bytes):
        with pytest.raises(Damaged):
            await verified(fetch, store, keys[kind], listed_bytes=listed_bytes)


@pytest.mark.parametrize("block_bytes", [None, 1 << 16])
async def test_no_bit_of_a_segment_goes_unseen(
    fetch: Fetch, store: MemoryStore, recorder: Recorder, block_bytes: int | None
) -> None:
    """Whichever byte of a segment changes, in its head, blocks, index or trailer, it is refused."""
    await recorder.segment(store, 7, block_bytes=block_bytes)
    (key,) = store._objects
    body, at = store._objects[key]
    places = {*range(200), *range(len(body) - 400, len(body)), *range(0, len(body), 97)} & set(range(len(body)))
    for place in places:
        broken = bytearray(body)
        broken[place] ^= 1 << place % 8
        store._objects[key] = bytes(broken), at
        with pytest.raises((Damaged, NewerFormat)):
            await verified(fetch, store, key)


async def test_a_missing_object(fetch: Fetch, store: MemoryStore, recorder: Recorder) -> None:
    """What was listed and is gone is missing, not damaged."""
    keys = await stored(store, recorder)
    spoil(store, keys[ObjectKind.CHUNK], "missing")
    with pytest.raises(ObjectMissing):
        await verified(fetch, store, keys[ObjectKind.CHUNK], listed_bytes=10)


@pytest.mark.parametrize("kind", [ObjectKind.START, ObjectKind.MANIFEST, ObjectKind.SEGMENT])
async def test_another_databases_object(fetch: Fetch, store: MemoryStore, recorder: Recorder, kind: ObjectKind) -> None:
    """A sound object of another database under a key of this one is damaged."""
    keys = await stored(store, recorder)
    with pytest.raises(Damaged, match="database_id"):
        await verify_object(fetch, keys[kind], len(store._objects[keys[kind]][0]), database_id="another")


async def test_a_large_segment_is_checked_in_pieces(
    fetch: Fetch, store: MemoryStore, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a segment above the limit no request fetches all, and a bit flipped in any of its blocks is found."""
    for module in ("replicad.restore.segments", "replicad.restore.verify_object"):
        monkeypatch.setattr(f"{module}.WHOLE_BYTES", 100_000)
    key = await recorder.segment(store, 2, 7, block_bytes=1 << 16)
    body = store._objects[key][0]
    assert len(body) > 300_000
    index = decode(body, what=key)
    requests = fetch.requests
    await verified(fetch, store, key)
    assert fetch.requests > requests + 3
    for block in index.blocks:
        broken = bytearray(body)
        broken[block.offset + block.stored_bytes // 2] ^= 1
        store._objects[key] = bytes(broken), store._objects[key][1]
        with pytest.raises(Damaged):
            await verified(fetch, store, key)


async def test_what_is_not_of_the_history(fetch: Fetch) -> None:
    """Notes of a handover, the keyring and foreign objects are told apart, and not read."""
    assert (await verify_object(fetch, KEYRING, 9, database_id="")).kind is ObjectKind.KEYRING
    assert (await verify_object(fetch, "handover/00000002.json", 9, database_id="")).kind is ObjectKind.NOTE
    assert (await verify_object(fetch, "notes.txt", 9, database_id="")).kind is ObjectKind.FOREIGN
    assert fetch.requests == 0
