"""Restores of encrypted replicas: exact, and led around what is broken as those of plain ones are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from replicad.encryption.keys import EncryptionKey
from replicad.errors import HistoryGap, WrongKey
from replicad.plan.target import AtTXID
from replicad.position import TXID
from replicad.restore.request import RestoreRequest
from replicad.restore.restore import restore
from replicad.snapshot import decode_manifest
from replicad.store.encrypted import EncryptedStore
from tests.unit.restore.test_damage import BREAKAGES, spoil

if TYPE_CHECKING:
    from pathlib import Path

    from replicad.store.memory import MemoryStore
    from tests.support.recorder import Recorder

KEY, NEW = (EncryptionKey(bytes([number]) * 32) for number in (1, 2))


async def stored(recorder: Recorder, beneath: MemoryStore, *keys: EncryptionKey) -> tuple[EncryptedStore, list[str]]:
    """Store two snapshots and all segments; return the store and the manifests' keys."""
    store = EncryptedStore(beneath, keys)
    await recorder.start(store)
    for number in range(2, 8):
        await recorder.segment(store, number)
    return store, [await recorder.snapshot(store, number) for number in (1, 4)]


def read(path: Path) -> bytes:
    """Return what stands in a file."""
    return path.read_bytes()


async def check(recorder: Recorder, store: EncryptedStore, path: Path, txid: int = 7) -> tuple[str, ...]:
    """Restore, compare with what SQLite had, and return what was led around."""
    restored = await restore(store, RestoreRequest(path=path, target=AtTXID(TXID(txid)), force=True))
    assert read(path) == recorder.transactions[txid].database
    return restored.unusable


async def test_every_transaction(recorder: Recorder, store: MemoryStore, tmp_path: Path) -> None:
    """Every transaction of an encrypted replica is restored exactly, also onto a file that stands there."""
    sealed, _ = await stored(recorder, store, KEY)
    for number in (7, 3, 1, 4, 6):
        assert await check(recorder, sealed, tmp_path / "out", number) == ()


@pytest.mark.parametrize("breakage", BREAKAGES)
async def test_what_is_broken_is_led_around(
    recorder: Recorder, store: MemoryStore, tmp_path: Path, breakage: str
) -> None:
    """TRAP: a manifest or chunk that is missing, empty, cut off or has one bit flipped is replaced by an older way.

    Seen to fail (ValueError) with the error of a tag raised as another class.
    """
    for which in ("manifest", "chunk"):
        sealed, manifests = await stored(recorder, store, KEY)
        older, newest = [decode_manifest(await sealed.get(key), what=key) for key in manifests]
        shared = {chunk.key for chunk in older.chunks}
        broken = manifests[-1]
        if which == "chunk":
            broken = next(chunk.key for chunk in newest.chunks if chunk.key not in shared)
        spoil(store, broken, breakage)
        assert broken in await check(recorder, sealed, tmp_path / which) or breakage == "missing"


async def test_an_exchanged_chunk(recorder: Recorder, store: MemoryStore, tmp_path: Path) -> None:
    """A chunk in the place of another one is found at once, by its name, before the whole is compared."""
    sealed, manifests = await stored(recorder, store, KEY)
    chunks = decode_manifest(await sealed.get(manifests[-1]), what="").chunks
    store._objects[chunks[0].key] = store._objects[chunks[1].key]
    unusable = await check(recorder, sealed, tmp_path / "out")
    assert chunks[0].key in unusable


async def test_a_segment_that_only_one_way_has(recorder: Recorder, store: MemoryStore, tmp_path: Path) -> None:
    """Where there is no other way it is an error, and no file is left."""
    sealed, _ = await stored(recorder, store, KEY)
    segment = next(key for key in store._objects if key.endswith(".seg") and "0007-" in key)
    spoil(store, segment, "one bit flipped")
    with pytest.raises(HistoryGap):
        await restore(sealed, RestoreRequest(path=tmp_path / "none", target=AtTXID(TXID(7))))
    assert not (tmp_path / "none").exists()


async def test_a_rotated_replica(recorder: Recorder, store: MemoryStore, tmp_path: Path) -> None:
    """A snapshot whose chunks were named and encrypted under two keys is restored with both, and not with one."""
    await stored(recorder, store, KEY)
    sealed = EncryptedStore(store, [NEW, KEY])
    await recorder.snapshot(sealed, 6)
    assert await check(recorder, sealed, tmp_path / "out") == ()
    for keys in ([NEW], [KEY]):
        with pytest.raises(WrongKey):
            await restore(EncryptedStore(store, keys), RestoreRequest(path=tmp_path / "none"))
    assert not (tmp_path / "none").exists()
