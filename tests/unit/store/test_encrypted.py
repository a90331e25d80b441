"""The wrapper that encrypts, over a store in memory whose every body can be looked at and exchanged."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.encryption.keyring import decode_keyring
from replicad.encryption.keys import EncryptionKey
from replicad.encryption.sizes import HEADER_BYTES, PIECE_BYTES, piece_offset
from replicad.errors import (
    ConditionalWritesUnsupported,
    Damaged,
    KeyNotGiven,
    ObjectExists,
    ObjectMissing,
    ReplicadError,
    StoreUnreachable,
    WrongKey,
)
from replicad.layout import KEYRING
from replicad.restore.fetch import Fetch
from replicad.restore.history import read_history
from replicad.store.database import chunk_names, database_store, stored_objects
from replicad.store.encrypted import EncryptedStore
from replicad.store.memory import MemoryStore
from replicad.store.prefixed import PrefixedStore
from replicad.store.retrying import RetryingStore, RetryPolicy
from tests.support import sealed
from tests.support.faulty_store import Faults, FaultyStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from replicad.store.protocol import ObjectStore

OLD, NEW, OTHER = (EncryptionKey(bytes([number]) * 32) for number in (1, 2, 3))
CLAIM = "claims/00000001.json"
OBJECT = "epochs/00000001/log/large.seg"


def bodies(beneath: MemoryStore) -> dict[str, bytes]:
    """Return every object as it is stored."""
    return {key: body for key, (body, _) in beneath._objects.items()}


def content(size: int) -> bytes:
    """Return bytes that differ from piece to piece."""
    return b"".join(number.to_bytes(4, "big") for number in range(-(-size // 4)))[:size]


async def _parts(body: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(body), size):
        yield body[at : at + size]


async def _keys(store: ObjectStore) -> list[str]:
    return [row.key async for row in store.list("")]


NEAR_BORDERS = st.builds(
    lambda pieces, more: max(0, pieces * PIECE_BYTES + more), st.integers(0, 3), st.integers(-2, 2)
)


@given(NEAR_BORDERS, NEAR_BORDERS | st.integers(0, 200_000), st.none() | NEAR_BORDERS, st.integers(1, 2))
async def test_ranges(size: int, start: int, stop: int | None, times: int) -> None:
    """Any range of an object of any size is what a slice of its content is, with a header that is known or not."""
    store = EncryptedStore(MemoryStore(), [OLD])
    await store.put(OBJECT, content(size))
    for _ in range(times):
        assert await store.get(OBJECT, start=start, stop=stop) == content(size)[start:stop]


@given(NEAR_BORDERS, st.integers(1, 150_000))
async def test_streams(size: int, part: int) -> None:
    """A stream becomes the same object as a put, however it is cut into parts, and its size is its content's."""
    store = EncryptedStore(MemoryStore(), [OLD])
    assert await store.put_stream(OBJECT, _parts(content(size), part)) == size
    assert await store.get(OBJECT) == content(size)
    assert [row.size_bytes async for row in store.list("epochs/")] == [size]


async def test_a_second_reader_reads_it() -> None:
    """What is stored is what docs/format.md says: a reader written from that text alone reads all of it."""
    beneath = MemoryStore()
    store = EncryptedStore(beneath, [OLD])
    written = {CLAIM: b'{"id":"x"}', OBJECT: content(3 * PIECE_BYTES), "epochs/empty": b""}
    for key, body in written.items():
        await store.put(key, body)
    stored = bodies(beneath)
    ring = sealed.read_ring(stored.pop("claims/keyring"))
    secrets = {sealed.key_id(OLD.reveal()): OLD.reveal()}
    assert ring.key_ids == list(secrets)
    assert {key: sealed.unseal(secrets, ring.replica_id, key, body) for key, body in stored.items()} == written
    assert (await chunk_names(store)).name(b"raw") == sealed.chunk_name(OLD.reveal(), ring.replica_id, b"raw")


# --- what is not what was stored ----------------------------------------------------------------


async def _tampered(body: bytes, *, key: str = OBJECT, size: int = 3 * PIECE_BYTES) -> list[type[Exception]]:
    """Return how every kind of read of an object ends whose stored body was replaced."""
    beneath = MemoryStore()
    store = EncryptedStore(beneath, [OLD])
    await store.put(key, content(size))
    await beneath.put(key, body)
    ends: list[type[Exception]] = []
    for start, stop in ((0, None), (PIECE_BYTES, None), (2 * PIECE_BYTES + 5, None), (size - 1, size)):
        try:
            found = await store.get(key, start=start, stop=stop)
        except ReplicadError as error:
            ends.append(type(error))
        else:
            assert found == content(size)[start:stop], "what is returned is what was stored, or nothing is"
    return ends


async def _sealed_object(key: str = OBJECT, size: int = 3 * PIECE_BYTES, *, base: str = "") -> bytes:
    beneath = MemoryStore()
    await EncryptedStore(PrefixedStore(beneath, base) if base else beneath, [OLD]).put(key, content(size))
    return bodies(beneath)[base + key]


async def test_an_object_that_was_cut_off() -> None:
    """TRAP: an object cut off anywhere, at the border of a piece too, is found by every read of its end.

    Seen to fail with a nonce without the last flag: the ranges at the border came back short, without an error.
    """
    whole = await _sealed_object()
    cuts = {0, 1, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 1, len(whole) - 1}
    cuts |= {piece_offset(number) + more for number in (1, 2) for more in (-1, 0, 1)}
    for cut in cuts:
        assert await _tampered(whole[:cut]) == [Damaged] * 4, cut
    assert await _tampered(whole + b"x") != []


async def test_an_object_of_another_key_or_database() -> None:
    """An object that was put in the place of another one is refused, also one of another database with the same key.

    Seen to fail with the name, and with the replica's id, left out of what is compared and covered.
    """
    assert await _tampered(await _sealed_object("epochs/00000002/log/large.seg")) == [Damaged] * 4
    assert await _tampered(await _sealed_object(base="app2.db/")) == [Damaged] * 4


async def test_a_header_of_another_database() -> None:
    """Nor does it help to put this database's id into the header of another one's object.

    Seen to fail with the header left out of what the tags cover.
    """
    mine, theirs = await _sealed_object(), await _sealed_object(base="app2.db/")
    assert await _tampered(theirs[:20] + mine[20:36] + theirs[36:]) == [Damaged] * 4


@given(st.data())
async def test_every_bit_counts(data: st.DataObject) -> None:
    """Whatever bit is flipped: no read returns anything but what was stored, and one that needs the bit fails."""
    body = bytearray(await _sealed_object())
    bit = data.draw(st.integers(0, len(body) * 8 - 1))
    body[bit // 8] ^= 1 << bit % 8
    assert await _tampered(bytes(body))


async def test_a_copy_needs_no_key() -> None:
    """All objects copied as they are to another bucket, prefix and name are read there with the same key."""
    here, there = MemoryStore("here"), MemoryStore("there")
    store = database_store(here, "app.db", [OLD])
    await store.put(CLAIM, b"claimed")
    await store.put(OBJECT, content(200_000))
    source, target = stored_objects(here, "app.db"), stored_objects(PrefixedStore(there, "old/"), "other.db")
    for key in await _keys(source):
        await target.put(key, await source.get(key))
    copy = database_store(PrefixedStore(there, "old/"), "other.db", [OLD])
    assert await copy.get(OBJECT, start=100_000) == content(200_000)[100_000:]
    assert await chunk_names(copy) == await chunk_names(store)


# --- requests, memory, lost answers --------------------------------------------------------------


async def test_requests() -> None:
    """It costs one GET at the start, and for an object that is read by ranges one more: for its header."""
    beneath = FaultyStore(MemoryStore())
    await EncryptedStore(beneath, [OLD]).put(OBJECT, content(4 * PIECE_BYTES))
    beneath.calls.clear()
    store = EncryptedStore(beneath, [OLD])
    await store.get(OBJECT, start=0, stop=10)
    await store.get(OBJECT)
    assert [call.key for call in beneath.calls] == [KEYRING, OBJECT, OBJECT]
    beneath.calls.clear()
    for number in (1, 2, 3):
        await store.get(OBJECT, start=number * PIECE_BYTES, stop=number * PIECE_BYTES + 10)
    assert len(beneath.calls) == 4
    assert await store.get(OBJECT, start=5, stop=5) == b""
    assert len(beneath.calls) == 4
    await store.put("handover/00000002.json", b"a note")
    assert beneath.count("put") == 1
    assert beneath.count("get") == 4


async def test_an_object_put_again() -> None:
    """A reader that knows an object's header reads on when the object was put again, with another salt."""
    beneath = MemoryStore()
    reader, writer = EncryptedStore(beneath, [OLD]), EncryptedStore(beneath, [OLD])
    await writer.put(OBJECT, content(3 * PIECE_BYTES))
    first = bodies(beneath)[OBJECT]
    assert (
        await reader.get(OBJECT, start=PIECE_BYTES, stop=PIECE_BYTES + 9) == content(3 * PIECE_BYTES)[PIECE_BYTES:][:9]
    )
    await writer.put(OBJECT, content(3 * PIECE_BYTES))
    assert bodies(beneath)[OBJECT] != first
    assert (
        await reader.get(OBJECT, start=PIECE_BYTES, stop=PIECE_BYTES + 9) == content(3 * PIECE_BYTES)[PIECE_BYTES:][:9]
    )


async def test_what_is_tried_again_is_the_same() -> None:
    """A put whose answer was lost is sent again with the same bytes: the retrying is beneath."""
    memory = MemoryStore()
    faulty = FaultyStore(memory, seed=3)
    policy = RetryPolicy(attempts=99, budget_seconds=60, first_wait_seconds=0.0001, max_wait_seconds=0.001)
    store = EncryptedStore(RetryingStore(faulty, policy), [OLD])
    await store.put(CLAIM, b"first")
    seen: list[bytes] = []
    put = memory.put

    async def noting(key: str, body: bytes) -> None:
        seen.append(body)
        await put(key, body)

    memory.put = noting  # type: ignore[method-assign]
    faulty.faults = Faults(lost_answer=0.9)
    await store.put(OBJECT, b"again and again")
    assert len(seen) > 1
    assert len(set(seen)) == 1


async def test_memory_of_a_stream_is_bounded() -> None:
    """A stream of any length is encrypted with a few parts in memory.

    Seen to fail with the parts gathered before they are sealed.
    """

    class Sink(MemoryStore):
        async def put_stream(self, key: str, parts: AsyncIterator[bytes]) -> int:  # noqa: ARG002 - what a store takes
            return sum([len(part) async for part in parts])

    async def endless(parts: int) -> AsyncIterator[bytes]:
        for _ in range(parts):
            yield bytes(1 << 20)

    store = EncryptedStore(Sink(), [OLD])
    await store.put(CLAIM, b"")
    tracemalloc.start()
    try:
        assert await store.put_stream(OBJECT, endless(64)) == 64 << 20
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 16 << 20


async def test_damage_on_the_way_is_looked_at_twice() -> None:
    """What broke on its way is fetched once more by a restore, like that of a plain replica."""
    from replicad.host.threads import Threads  # noqa: PLC0415

    faulty = FaultyStore(MemoryStore())
    store = EncryptedStore(faulty, [OLD])
    await store.put(OBJECT, b"sound")
    threads = Threads("test", 1)

    class Once(EncryptedStore):
        async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
            faulty.faults = Faults(flipped_bit=0.0 if faulty.count("get", OBJECT) else 1.0)
            return await super().get(key, start=start, stop=stop)

    flaky = Once(faulty, [OLD])
    await flaky.list("").__anext__()  # the keyring is known
    assert await Fetch(flaky, threads, concurrency=1).proven(OBJECT, bytes.upper) == b"SOUND"
    assert faulty.count("get", OBJECT) == 2
    await threads.close()


# --- which keys ----------------------------------------------------------------------------------


async def _replica(*keys: EncryptionKey, lasting: bool = True) -> MemoryStore:
    beneath = MemoryStore()
    await database_store(beneath, "app.db", keys).put(CLAIM if lasting else "handover/00000001.json", b"body")
    return beneath


OPERATIONS = ("get", "put", "put_stream", "create", "list", "delete", "history")


async def _do(store: ObjectStore, operation: str) -> None:
    match operation:
        case "get":
            await store.get(CLAIM)
        case "put":
            await store.put("epochs/x", b"plain text")
        case "put_stream":
            await store.put_stream("epochs/x", _parts(b"plain text", 3))
        case "create":
            await store.create("epochs/x", b"plain text")
        case "list":
            [row async for row in store.list("")]
        case "delete":
            await store.delete([CLAIM])
        case "history":
            await read_history(store)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("keys", [(OTHER,), ()], ids=["another key", "no key"])
async def test_a_wrong_key(operation: str, keys: tuple[EncryptionKey, ...]) -> None:
    """TRAP: with another key, or none, whatever comes first fails with the ids of both, and nothing was changed.

    Seen to fail with the check left out of each operation in turn.
    """
    beneath = await _replica(OLD)
    before = bodies(beneath)
    with pytest.raises(WrongKey) as raised:
        await _do(database_store(beneath, "app.db", keys), operation)
    assert raised.value.exit_code == 12
    assert OLD.id.hex() in str(raised.value)
    assert (OTHER.id.hex() if keys else "no key") in str(raised.value)
    assert bodies(beneath) == before


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("held", [CLAIM, "epochs/00000001/start.json"])
async def test_a_key_for_a_plain_replica(operation: str, held: str) -> None:
    """TRAP: a key does not make a replica that is not encrypted half encrypted: it is refused, with a way out."""
    beneath = await _replica()
    objects = stored_objects(beneath, "app.db")
    if held != CLAIM:  # somebody deleted the claims
        await objects.delete([CLAIM])
        await objects.put(held, b"plain")
    before = bodies(beneath)
    with pytest.raises(WrongKey, match=f"{held} is not encrypted.*another prefix"):
        await _do(database_store(beneath, "app.db", [OLD]), operation)
    assert bodies(beneath) == before


async def test_an_empty_replica() -> None:
    """Nothing is stored by reading an empty replica, with a key or without; the first writer decides."""
    beneath = MemoryStore()
    for keys in ((OLD,), (), (OTHER,)):
        store = database_store(beneath, "app.db", keys)
        assert await _keys(store) == []
        with pytest.raises(ObjectMissing):
            await store.get(CLAIM)
        await chunk_names(store)
    assert bodies(beneath) == {}
    await database_store(beneath, "app.db", [OLD]).create(CLAIM, b"mine")
    with pytest.raises(WrongKey):
        await database_store(beneath, "app.db", ()).put(CLAIM, b"plain")


async def test_one_that_looked_before_the_first_writer() -> None:
    """Who saw an empty replica looks again before it writes or reads: the first writer had another key."""
    beneath = MemoryStore()
    early = [database_store(beneath, "app.db", keys) for keys in ((OTHER,), (OLD,))]
    for store in early:
        assert await _keys(store) == []
    await database_store(beneath, "app.db", [OLD]).create(CLAIM, b"mine")
    with pytest.raises(WrongKey):
        await early[0].put("epochs/x", b"")
    assert await early[1].get(CLAIM) == b"mine"


async def test_two_first_writers() -> None:
    """TRAP: of two first writers with different keys the store lets one begin; the other is refused, and wrote nothing.

    Seen to fail with the keyring put and not created, nor read back.
    """
    for seed in range(40):
        beneath = FaultyStore(MemoryStore(), Faults(latency_seconds=(0.0, 0.005)), seed=seed)
        stores = [database_store(beneath, "app.db", [key]) for key in (OLD, OTHER)]
        ends = await asyncio.gather(*(store.create(CLAIM, b"mine") for store in stores), return_exceptions=True)
        refused = [number for number, end in enumerate(ends) if isinstance(end, WrongKey)]
        assert len(refused) == 1
        assert ends[1 - refused[0]] is None
        assert await stores[1 - refused[0]].get(CLAIM) == b"mine"


@pytest.mark.parametrize("ignores", [True, False])
async def test_two_first_writers_with_one_key(ignores: bool) -> None:  # noqa: FBT001 - pytest's
    """Two first writers with the same key understand one another, also in a store that lets both create.

    Seen to fail in such a store with a random replica id.
    """
    for seed in range(40):
        faults = Faults(latency_seconds=(0.0, 0.005), ignores_condition=ignores)
        beneath = FaultyStore(MemoryStore(), faults, seed=seed)
        stores = [database_store(beneath, "app.db", [OLD]) for _ in range(2)]
        await asyncio.gather(*(store.put(f"epochs/{number}", b"x") for number, store in enumerate(stores)))
        assert await stores[0].get("epochs/1") == await stores[1].get("epochs/0") == b"x"


async def test_a_store_without_conditional_writes() -> None:
    """Where nothing can be created the keyring is put, and read back."""

    class Unconditional(MemoryStore):
        async def create(self, key: str, body: bytes) -> None:
            raise ConditionalWritesUnsupported(store=self.url, operation=f"create {key}", found=f"{len(body)} bytes")

    beneath = Unconditional()
    await EncryptedStore(beneath, [OLD]).put(CLAIM, b"x")
    assert await EncryptedStore(beneath, [OLD]).get(CLAIM) == b"x"


async def test_lost_answers_to_the_keyring() -> None:
    """Whatever becomes of the requests for the keyring: an object is stored only when it stands."""
    for seed in range(60):
        memory = MemoryStore()
        beneath = FaultyStore(memory, Faults(lost_answer=0.3, lost_request=0.2, conflict=0.2), seed=seed)
        store = EncryptedStore(beneath, [OLD])
        try:
            await store.put(CLAIM, b"x")
        except StoreUnreachable:
            assert CLAIM not in bodies(memory) or KEYRING in bodies(memory)
        beneath.faults = Faults()
        await store.put(CLAIM, b"x")
        assert await EncryptedStore(memory, [OLD]).get(CLAIM) == b"x"


async def test_the_keyring_was_deleted() -> None:
    """A keyring that somebody deleted is known again by the newest object, and stored again by the next write."""
    beneath = await _replica(OLD)
    ring = bodies(beneath)[f"app.db/{KEYRING}"]
    await beneath.delete([f"app.db/{KEYRING}"])
    store = database_store(beneath, "app.db", [OLD])
    assert await store.get(CLAIM) == b"body"
    with pytest.raises(WrongKey, match=OLD.id.hex()):
        await _keys(database_store(beneath, "app.db", [OTHER]))
    with pytest.raises(WrongKey):
        await read_history_with_start(database_store(beneath, "app.db", ()))
    await store.put("epochs/x", b"")
    assert bodies(beneath)[f"app.db/{KEYRING}"] == ring


async def read_history_with_start(store: ObjectStore) -> None:
    """Read a body, as every reader does before it writes."""
    await store.get(CLAIM)


async def test_a_broken_keyring() -> None:
    """A keyring that cannot be read stops whoever has a key, and whoever has none."""
    beneath = await _replica(OLD)
    await beneath.put(f"app.db/{KEYRING}", b"\x89RPDKEY\nbroken")
    with pytest.raises(Damaged, match="keyring"):
        await _keys(database_store(beneath, "app.db", [OLD]))
    with pytest.raises(WrongKey):
        await database_store(beneath, "app.db", ()).put("epochs/x", b"")


async def test_the_keyring_is_not_an_object() -> None:
    """What lists the replica does not see the keyring; without a key the first listing costs no extra request."""
    beneath = FaultyStore(MemoryStore())
    plain = database_store(beneath, "plain", ())
    assert await _keys(plain) == []
    await plain.put(CLAIM, b"x")
    await plain.get(CLAIM)
    assert [call.verb for call in beneath.calls] == ["list", "put", "get"]
    await database_store(beneath, "app.db", [OLD]).put(CLAIM, b"x")
    assert await _keys(database_store(beneath, "app.db", [OLD])) == [CLAIM]


# --- rotation ------------------------------------------------------------------------------------


async def test_rotation() -> None:
    """With a new key before the old one, new objects need the new one, and old ones are read with the old."""
    beneath = await _replica(OLD)
    rotated = database_store(beneath, "app.db", [NEW, OLD])
    assert await rotated.get(CLAIM) == b"body"
    assert decode_keyring(bodies(beneath)[f"app.db/{KEYRING}"], what="").key_ids == (OLD.id,), "reading changes nothing"
    await rotated.put("epochs/x", b"new")
    assert decode_keyring(bodies(beneath)[f"app.db/{KEYRING}"], what="").key_ids == (NEW.id, OLD.id)
    assert bodies(beneath)["app.db/epochs/x"][12:20] == NEW.id
    assert await database_store(beneath, "app.db", [OLD, NEW]).get("epochs/x") == b"new"
    names, before = await chunk_names(rotated), await chunk_names(database_store(beneath, "app.db", [OLD, NEW]))
    assert names.name(b"raw") != before.name(b"raw")
    assert names.fits(before.name(b"raw"), b"raw")


@pytest.mark.parametrize("keys", [(OLD,), (NEW,)], ids=["the new one missing", "the old one removed too early"])
async def test_a_key_missing_after_a_rotation(keys: tuple[EncryptionKey, ...]) -> None:
    """TRAP: when either key is missing after a rotation, all fails at once, with its id, and nothing was changed."""
    beneath = await _replica(OLD)
    await database_store(beneath, "app.db", [NEW, OLD]).put("epochs/x", b"new")
    before = bodies(beneath)
    for operation in OPERATIONS:
        with pytest.raises(WrongKey, match=f"{NEW.id.hex()}, {OLD.id.hex()}"):
            await _do(database_store(beneath, "app.db", keys), operation)
    assert bodies(beneath) == before


async def test_two_rotate_one_after_the_other() -> None:
    """Who looked before another one put a key on the keyring does not take that key off.

    Seen to fail with the keyring that was read first written back.
    """
    beneath = await _replica(OLD)
    late = database_store(beneath, "app.db", [OTHER, NEW, OLD])
    assert await late.get(CLAIM) == b"body"
    await database_store(beneath, "app.db", [NEW, OLD]).put("epochs/x", b"new")
    await late.put("epochs/y", b"other")
    assert decode_keyring(bodies(beneath)[f"app.db/{KEYRING}"], what="").key_ids == (OTHER.id, NEW.id, OLD.id)


async def test_a_note_does_not_rotate() -> None:
    """Asking the owner for the database under a new key leaves the replica to those who have the old one alone."""
    beneath = await _replica(OLD)
    await database_store(beneath, "app.db", [NEW, OLD]).put("handover/00000002.json", b"please")
    owner = database_store(beneath, "app.db", [OLD])
    await owner.put("epochs/x", b"")
    with pytest.raises(Damaged, match=f"key id.*{NEW.id.hex()}"):
        await owner.get("handover/00000002.json")


async def test_an_owner_does_not_see_a_rotation_happen() -> None:
    """A running owner with the old key alone meets objects of the new one, and is told so object by object."""
    beneath = await _replica(OLD)
    owner = database_store(beneath, "app.db", [OLD])
    assert await owner.get(CLAIM) == b"body"
    await database_store(beneath, "app.db", [NEW, OLD]).create("claims/00000002.json", b"next")
    assert await _keys(owner) == [CLAIM, "claims/00000002.json"]
    with pytest.raises(KeyNotGiven, match=f"{NEW.id.hex()}.*{OLD.id.hex()}"):
        await owner.get("claims/00000002.json")
    with pytest.raises(ObjectExists):
        await owner.create("claims/00000002.json", b"mine")
