"""Copies of encrypted replicas: as they are stored, proven with the key, behind the keyring, and never mixed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from replicad.encryption.keyring import decode_keyring
from replicad.encryption.keys import EncryptionKey
from replicad.encryption.sealing import decode_header
from replicad.errors import Damaged, OtherHistory, WrongKey
from replicad.layout import EPOCHS, KEYRING, parse_segment
from replicad.mirror import sending
from replicad.mirror.copying import Copied, CopyOptions, copy_replica
from replicad.mirror.side import Side
from replicad.plan.copying import is_history
from replicad.restore.request import RestoreRequest
from replicad.restore.restore import restore
from replicad.store.encrypted import EncryptedStore
from replicad.store.memory import MemoryStore
from tests.support.rollups import roll_up
from tests.unit.mirror.conftest import Replica, fill, objects

if TYPE_CHECKING:
    from pathlib import Path

    from replicad.host.threads import Threads
    from tests.support.recorder import Recorder

KEY, NEW, OTHER = (EncryptionKey(bytes([number]) * 32) for number in (1, 2, 3))


class Ordered(MemoryStore):
    """Remembers in which order objects were stored."""

    def __init__(self, name: str = "there") -> None:
        super().__init__(name)
        self.order: list[tuple[str, bytes]] = []

    async def put(self, key: str, body: bytes) -> None:
        """Store an object."""
        await super().put(key, body)
        self.order.append((key, body))

    async def create(self, key: str, body: bytes) -> None:
        """Store an object if its key is free."""
        await super().create(key, body)
        self.order.append((key, body))


@pytest.fixture
async def sealed(recorders: tuple[Recorder, Recorder]) -> MemoryStore:
    """Return what is stored of an encrypted replica, with a roll-up in it."""
    beneath = MemoryStore("source")
    store = EncryptedStore(beneath, [KEY])
    await fill(store, *recorders)
    keys = [key for key in sorted(await objects(store)) if "/00000003/log/" in key and parse_segment(key)]
    await roll_up(store, keys)
    return beneath


async def copy(
    source: MemoryStore, there: MemoryStore, threads: Threads, *keys: EncryptionKey, verify: bool = False
) -> Copied:
    """Copy with these keys."""
    options = CopyOptions(verify=verify)
    return await copy_replica(Side.of(source, keys), Side.of(there, keys), threads, options=options)


def history(stored: dict[str, bytes]) -> dict[str, bytes]:
    """Return what a copy has to have."""
    return {key: body for key, body in stored.items() if is_history(key)}


@pytest.fixture(params=[8 << 20, 1024])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy objects whole, or each of them in pieces."""
    monkeypatch.setattr(sending, "PIECE_BYTES", request.param)
    monkeypatch.setattr("replicad.mirror.proven._PIECE_BYTES", request.param)


@pytest.mark.usefixtures("pieces")
async def test_it_is_copied_as_it_is_stored(
    recorders: tuple[Recorder, Recorder], sealed: MemoryStore, threads: Threads, tmp_path: Path
) -> None:
    """Every object arrives byte for byte, behind the keyring, whole or in pieces; the copy is restored with the key."""
    there = Ordered()
    copied = await copy(sealed, there, threads, KEY, verify=True)
    assert (copied.damaged, copied.sent, copied.verified) == ([], copied.missing, copied.missing)
    assert history(await objects(there)) == history(await objects(sealed))
    assert there.order[0][0] == KEYRING
    assert (await copy(sealed, there, threads, KEY)).sent == 0
    found = await restore(EncryptedStore(there, [KEY]), RestoreRequest(path=tmp_path / "restored.db"))
    image = (tmp_path / "restored.db").read_bytes()
    assert image == recorders[1].transactions[found.txid].database


@pytest.mark.parametrize("piece_bytes", [8 << 20, 1024])
async def test_damage_is_kept_out(
    sealed: MemoryStore, threads: Threads, monkeypatch: pytest.MonkeyPatch, piece_bytes: int
) -> None:
    """A bit flipped anywhere in what is stored of a segment, a roll-up, a chunk or a manifest: it is not copied."""
    monkeypatch.setattr(sending, "PIECE_BYTES", piece_bytes)
    stored = await objects(sealed)
    for part in (".seg", ".segs", "/chunks/", "/snapshots/"):
        key = next(key for key in stored if key.startswith(EPOCHS) and part in key)
        sound = stored[key]
        for place in (30, 60, len(sound) - 1):
            there = MemoryStore("there")
            await sealed.put(key, sound[:place] + bytes([sound[place] ^ 4]) + sound[place + 1 :])
            assert (await copy(sealed, there, threads, KEY)).damaged == [key], place
            assert key not in await objects(there)
        await sealed.put(key, sound)


async def test_what_was_damaged_before_it_was_encrypted_is_kept_out(sealed: MemoryStore, threads: Threads) -> None:
    """Tags vouch for what was written; what was written has to be what its key says, too."""
    store = EncryptedStore(sealed, [KEY])
    keys = sorted(key for key in await objects(store) if "/00000001/log/" in key or "/chunks/" in key)
    for key in (keys[0], keys[-1]):
        await store.put(key, b"sealed as it should be, and nothing that can be read")
    there = MemoryStore("there")
    assert sorted((await copy(sealed, there, threads, KEY)).damaged) == [keys[0], keys[-1]]
    assert not {keys[0], keys[-1]} & (await objects(there)).keys()


async def test_without_the_right_key_nothing_is_copied(sealed: MemoryStore, replica: Replica, threads: Threads) -> None:
    """No key, another one, and a key for a plain replica end with 12, before anything is written."""
    for source, keys in ((sealed, ()), (sealed, (OTHER,)), (replica.store, (KEY,))):
        there = Ordered()
        with pytest.raises(WrongKey):
            await copy(source, there, threads, *keys)
        assert there.order == []


async def test_plain_and_encrypted_are_never_mixed(sealed: MemoryStore, replica: Replica, threads: Threads) -> None:
    """A plain replica into an encrypted place, the other way round, and two replicas of one key are refused."""
    twin = MemoryStore("another source")
    await fill(EncryptedStore(twin, [KEY]), replica.first, replica.third)
    without = MemoryStore("a copy without its keyring")
    await copy(twin, without, threads, KEY)
    await without.delete([KEYRING])
    for source, there, keys, said in (
        (replica.store, sealed, (), "it is encrypted"),
        (sealed, replica.store, (KEY,), "not encrypted"),
        (sealed, twin, (KEY,), "keyring is of the replica"),
        (sealed, without, (KEY,), "is of the replica"),
    ):
        before = await objects(there)
        with pytest.raises(OtherHistory, match=said):
            await copy(source, there, threads, *keys)
        assert await objects(there) == before


async def test_a_keyring_that_was_lost_is_made_again(sealed: MemoryStore, threads: Threads) -> None:
    """Where somebody deleted the keyring, in the copy or in the replica, the objects say what it has to name."""
    for lost in ("copy", "replica"):
        there = Ordered()
        await copy(sealed, there, threads, KEY)
        if lost == "replica":
            await sealed.delete([KEYRING])
        key = next(key for key, _ in there.order if ".seg" in key)
        await there.delete([key, KEYRING])
        assert (await copy(sealed, there, threads, KEY)).sent == 1
        keyring = decode_keyring(await there.get(KEYRING), what=KEYRING)
        assert keyring.key_ids == (KEY.id,)
        assert history(await objects(there)) == history(await objects(sealed))


async def test_a_new_key_is_on_the_keyring_before_anything_under_it(
    recorders: tuple[Recorder, Recorder], sealed: MemoryStore, threads: Threads
) -> None:
    """Behind a rotation the keyring of the copy names both keys before it has an object that needs the new one."""
    there = Ordered()
    await copy(sealed, there, threads, KEY)
    recorders[1].fill(1)
    await recorders[1].segment(EncryptedStore(sealed, [NEW, KEY]), 12)
    with pytest.raises(WrongKey):
        await copy(sealed, there, threads, KEY)
    there.order.clear()
    assert (await copy(sealed, there, threads, NEW, KEY)).sent == 1
    (ring, body), (segment, stored) = there.order
    assert (ring, decode_keyring(body, what=ring).key_ids) == (KEYRING, (NEW.id, KEY.id))
    assert decode_header(stored, what=segment).key_id == NEW.id
    assert history(await objects(there)) == history(await objects(sealed))


async def test_what_the_copys_keyring_names_beside_stays(sealed: MemoryStore, threads: Threads) -> None:
    """A key that was taken off the replica's keyring stays on that of the copy: something there may need it."""
    there = MemoryStore("there")
    old = await sealed.get(KEYRING)
    await EncryptedStore(sealed, [NEW, KEY]).put("claims/00000009.json", b"{}")
    await copy(sealed, there, threads, NEW, KEY)
    await sealed.put(KEYRING, old)
    key = next(key for key in await objects(there) if ".seg" in key)
    await there.delete([key])
    await copy(sealed, there, threads, NEW, KEY)
    assert set(decode_keyring(await there.get(KEYRING), what=KEYRING).key_ids) == {NEW.id, KEY.id}


async def test_pieces_are_proven_by_their_tags(sealed: MemoryStore) -> None:
    """As it is stored, a large object is handed on in pieces: all of them its own, whole and in their order."""
    store, key = EncryptedStore(sealed, [KEY]), "epochs/00000001/large"
    content = bytes(range(256)) * 1000
    await store.put(key, content)
    stored = await sealed.get(key)
    pieces = [piece async for piece in store.sealed_pieces(key, len(stored), most_bytes=140_000)]
    assert (b"".join(pieces), len(pieces)) == (stored, 1 + 2)
    assert await store.opened(key, stored) == content
    for broken in (stored[:-5], stored[:70_000] + b"?" + stored[70_001:], stored[:52] + stored[52 + 65_552 :]):
        await sealed.put(key, broken)
        with pytest.raises(Damaged):
            _ = [piece async for piece in store.sealed_pieces(key, len(stored), most_bytes=140_000)]
