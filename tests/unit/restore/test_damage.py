"""Objects that are missing, broken or not what their key says: another way to the same transaction, or an error.

Never an older state, never a file that is not proven.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from replicad.errors import HistoryGap, NewerFormat, ProofFailed, ReplicadError, TargetOutsideWindow, WrongKey
from replicad.layout import chunk_key, parse_manifest, parse_segment
from replicad.plan.target import AtTime, AtTXID
from replicad.position import TXID, Epoch
from replicad.restore.request import RestoreRequest
from replicad.restore.restore import restore
from replicad.snapshot import decode_manifest, encode_manifest
from replicad.store.memory import MemoryStore
from tests.support.recorder import STEP_MS, T0_MS, Recorder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def flipped(body: bytes) -> bytes:
    """Return the body with one bit in the middle turned over."""
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 4]) + body[middle + 1 :]


BREAKAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "missing": lambda _: None,
    "zero bytes": lambda _: b"",
    "truncated": lambda body: body[: len(body) * 2 // 3],
    "one bit flipped": flipped,
    "trailing garbage": lambda body: body + b"garbage",
    "all zeros": lambda body: bytes(len(body)),
}


def spoil(store: MemoryStore, key: str, breakage: str) -> None:
    """Break a stored object."""
    body = BREAKAGES[breakage](store._objects[key][0])
    if body is None:
        del store._objects[key]
    else:
        store._objects[key] = body, store._objects[key][1]


@dataclass
class Stored:
    """The seven transactions, stored so that there are two ways to each of the later ones."""

    recorder: Recorder
    store: MemoryStore
    folder: Path
    snapshots: dict[int, str]
    segments: dict[tuple[int, int], str]

    async def restore(self, txid: int = 7) -> tuple[str, ...]:
        """Restore, compare with what SQLite had, and return what was led around."""
        path = self.folder / "t" / "out"
        restored = await restore(self.store, RestoreRequest(path=path, target=AtTXID(TXID(txid)), force=True))
        assert restored.txid == txid
        assert path.read_bytes() == self.recorder.transactions[txid].database
        assert [found.name for found in path.parent.iterdir()] == ["out"]
        return restored.unusable

    async def refused(self, error: type[ReplicadError], txid: int = 7) -> str:
        """Fail to restore, with nothing left behind, and return the message."""
        with pytest.raises(error) as caught:
            await restore(self.store, RestoreRequest(path=self.folder / "u" / "out", target=AtTXID(TXID(txid))))
        assert not (self.folder / "u").exists() or list((self.folder / "u").iterdir()) == []
        return str(caught.value)


@pytest.fixture
async def stored(recorder: Recorder, store: MemoryStore, tmp_path: Path) -> Stored:
    """Store two snapshots, single segments, and a roll-up of some of them."""
    await recorder.start(store)
    return Stored(
        recorder=recorder,
        store=store,
        folder=tmp_path,
        snapshots={number: await recorder.snapshot(store, number) for number in (1, 4)},
        segments={
            (first, last): await recorder.segment(store, first, last)
            for first, last in ((2, 2), (3, 3), (4, 4), (5, 5), (6, 6), (5, 6), (7, 7))
        },
    )


@pytest.mark.parametrize("breakage", BREAKAGES)
async def test_a_broken_segment_is_led_around(stored: Stored, breakage: str) -> None:
    """TRAP: a segment missing, of zero bytes, truncated or with one bit flipped is found out and not used.

    Seen to fail (Damaged, ObjectMissing) without planning anew, and (a wrong file) with hashes not compared.
    """
    broken = stored.segments[5, 6]
    spoil(stored.store, broken, breakage)
    assert set(await stored.restore()) <= {broken}


@pytest.mark.parametrize("breakage", BREAKAGES)
async def test_a_broken_manifest_is_led_around(stored: Stored, breakage: str) -> None:
    """TRAP: a manifest that cannot be used is replaced by an older snapshot and more segments: the same transaction."""
    spoil(stored.store, stored.snapshots[4], breakage)
    assert set(await stored.restore(6)) <= {stored.snapshots[4]}


@pytest.mark.parametrize("breakage", BREAKAGES)
async def test_a_broken_chunk_is_led_around(stored: Stored, breakage: str) -> None:
    """TRAP: a chunk that cannot be used makes its snapshot unusable, and an older one leads to the same transaction."""
    manifest = decode_manifest(await stored.store.get(stored.snapshots[4]), what="")
    older = {chunk.key for chunk in decode_manifest(await stored.store.get(stored.snapshots[1]), what="").chunks}
    broken = next(chunk.key for chunk in manifest.chunks if chunk.key not in older)
    spoil(stored.store, broken, breakage)
    assert await stored.restore(4) == (stored.snapshots[4], broken)


@pytest.mark.parametrize("breakage", BREAKAGES)
async def test_without_another_way_the_error_names_the_cause_and_the_nearest_instants(
    stored: Stored, breakage: str
) -> None:
    """TRAP: what cannot be led around is an error that says what is broken and what can still be reached.

    Never an older state: the transactions before it and behind it are named, and left to the user to choose.
    """
    await stored.recorder.end(stored.store, 7)
    spoil(stored.store, stored.segments[7, 7], breakage)
    message = await stored.refused(HistoryGap)
    assert "TXID 6 (2025-11-21T02:06:00.000Z)" in message
    assert stored.segments[7, 7] in message or breakage == "missing"


async def test_all_snapshots_broken_is_an_error(stored: Stored) -> None:
    """When no snapshot is left that can be used, nothing is nearest."""
    for key in stored.snapshots.values():
        spoil(stored.store, key, "one bit flipped")
    message = await stored.refused(HistoryGap)
    assert "snapshots" in message
    assert "are none" in message


async def test_one_after_another_everything_is_led_around(stored: Stored) -> None:
    """Several broken objects at once are found out one by one, as long as a way is left."""
    for key in (stored.snapshots[4], stored.segments[5, 6]):
        spoil(stored.store, key, "truncated")
    assert set(await stored.restore(6)) == {stored.snapshots[4], stored.segments[5, 6]}


async def test_an_object_of_another_database(stored: Stored) -> None:
    """TRAP: a sound segment of another database under this one's key is not applied.

    Seen to fail without `_check_identity`: it was applied, and only the last proof noticed.
    """
    key = stored.segments[5, 6]
    await stored.store.put(key, stored.recorder.encode_segment(5, 6, database_id="another"))
    assert await stored.restore() == (key,)


async def test_an_object_of_another_epoch(stored: Stored) -> None:
    """TRAP: a sound segment of another epoch under this one's key is not applied."""
    key = stored.segments[5, 6]
    await stored.store.put(key, stored.recorder.encode_segment(5, 6, epoch=9))
    assert await stored.restore() == (key,)


async def test_other_transactions_than_the_key_says(stored: Stored) -> None:
    """A segment that holds other transactions than its key says is not applied."""
    key = stored.segments[5, 6]
    await stored.store.put(key, stored.recorder.encode_segment(5, 5))
    assert await stored.restore() == (key,)


async def test_a_manifest_of_another_transaction(stored: Stored) -> None:
    """A manifest under the key of another transaction is not used."""
    await stored.store.put(stored.snapshots[4], await stored.store.get(stored.snapshots[1]))
    assert await stored.restore(4) == (stored.snapshots[4],)


async def test_a_segment_of_another_history_does_not_fit(stored: Stored, tmp_path: Path) -> None:
    """TRAP: a sound segment with the right numbers, of a history that went another way, breaks the chain.

    It is found out by the states that neighbours have to agree on. Seen to fail without `_check_link`: the file was
    put together, and only the last proof noticed, too late to know which object it was.
    """
    with stored.recorder.fork(tmp_path / "fork.db", 4, epoch=1) as other:
        other.fill(7)
        other.fill(9)
        forged = other.encode_segment(5, 6)
    await stored.store.put(stored.segments[5, 6], forged)
    assert await stored.restore() == (stored.segments[5, 6],)


async def test_a_manifest_whose_checksum_lies(stored: Stored) -> None:
    """A snapshot whose pages are not what its checksum says is not proven, and another one is used."""
    manifest = decode_manifest(await stored.store.get(stored.snapshots[4]), what="")
    other = type(manifest)(**{**{f: getattr(manifest, f) for f in manifest.__struct_fields__}, "checksum": "0" * 16})
    await stored.store.put(stored.snapshots[4], encode_manifest(other))
    assert await stored.restore(4) == (stored.snapshots[4],)
    spoil(stored.store, stored.snapshots[1], "missing")
    with pytest.raises(ProofFailed, match="checksum of the state expected 0000000000000000"):
        await restore(stored.store, RestoreRequest(path=stored.folder / "u" / "out", target=AtTXID(TXID(4))))
    assert list((stored.folder / "u").iterdir()) == []


async def test_retention_deletes_objects_of_a_restore_in_flight(stored: Stored) -> None:
    """TRAP: segments rolled up and deleted between the LIST and the GET are found again in their roll-up.

    Seen to fail (HistoryGap) with the new plan made on the old listing.
    """

    class Retained(MemoryStore):
        async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
            if parse_segment(key) and stored.segments[7, 7] in self._objects:
                await stored.recorder.segment(self, 2, 7)
                for gone in stored.segments.values():
                    self._objects.pop(gone)
            return await super().get(key, start=start, stop=stop)

    retained = Retained()
    retained._objects = stored.store._objects
    stored.store = retained
    assert await stored.restore() == (stored.segments[7, 7],)


async def test_a_chunk_deleted_in_flight(stored: Stored) -> None:
    """TRAP: a snapshot that retention deletes while it is fetched is replaced by another one."""

    class Retained(MemoryStore):
        async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
            body = await super().get(key, start=start, stop=stop)
            if key == stored.snapshots[4]:
                for chunk in decode_manifest(body, what="").chunks:
                    self._objects.pop(chunk.key, None)
                self._objects.pop(key)
                await stored.recorder.snapshot(self, 1)
            return body

    retained = Retained()
    retained._objects = stored.store._objects
    stored.store = retained
    assert stored.snapshots[4] in await stored.restore(4)


async def test_what_broke_on_the_way_is_fetched_again(stored: Stored) -> None:
    """TRAP: a short or garbled body with status 200 is fetched once more before the object is called damaged.

    Seen to fail (every object led around, then HistoryGap) without the second look in `Fetch.proven`.
    """

    class Garbling(MemoryStore):
        seen: set[str]

        async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
            body = await super().get(key, start=start, stop=stop)
            if key in self.seen or not key.startswith("epochs/") or key.endswith("start.json"):
                return body
            self.seen.add(key)
            return body[:-3]

    garbling = Garbling()
    garbling.seen = set()
    garbling._objects = stored.store._objects
    stored.store = garbling
    assert await stored.restore() == ()
    assert len(garbling.seen) >= 3


async def test_a_wrong_key_is_not_taken_for_damage(stored: Stored) -> None:
    """TRAP: a wrong key fails at once with its own error; nothing is led around."""

    class Encrypted(MemoryStore):
        async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
            if parse_manifest(key):
                raise WrongKey(what=key, expected="another key", found="this one", hint="Give it.")
            return await super().get(key, start=start, stop=stop)

    encrypted = Encrypted()
    encrypted._objects = stored.store._objects
    stored.store = encrypted
    await stored.refused(WrongKey)


async def test_a_newer_format_is_not_taken_for_damage(stored: Stored) -> None:
    """An object of a later version says "upgrade"; leading around it would only put that off."""
    body = (await stored.store.get(stored.snapshots[4])).replace(b'"version": 1', b'"version": 99')
    await stored.store.put(stored.snapshots[4], body)
    assert "Upgrade" in await stored.refused(NewerFormat)


@pytest.mark.parametrize("breakage", BREAKAGES)
async def test_a_time_within_a_broken_segment(stored: Stored, breakage: str) -> None:
    """The index that should settle a time may be broken: another segment's settles it, or it is a gap."""
    spoil(stored.store, stored.segments[5, 6], breakage)
    target = AtTime(round(T0_MS + 5.5 * STEP_MS))
    path = stored.folder / "t" / "out"
    assert (await restore(stored.store, RestoreRequest(path=path, target=target))).txid == 5
    spoil(stored.store, stored.segments[5, 5], "missing")
    with pytest.raises((HistoryGap, TargetOutsideWindow)):
        await restore(stored.store, RestoreRequest(path=path, target=target, force=True))


async def test_damage_has_an_end(stored: Stored) -> None:
    """However many objects are broken, the number of plans that are tried is bounded."""
    for first in range(2, 8):
        for _ in range(9):
            last = min(first + 1, 7)
            key = stored.segments.get((first, last)) or await stored.recorder.segment(stored.store, first, last)
            stored.segments[first, last] = key
    asked = 0

    class Counting(MemoryStore):
        async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
            nonlocal asked
            asked += 1
            body = await super().get(key, start=start, stop=stop)
            return flipped(body) if parse_segment(key) else body

    counting = Counting()
    counting._objects = stored.store._objects
    stored.store = counting
    await stored.refused(HistoryGap)
    assert asked < 200


async def test_the_old_file_can_stand_in_for_a_broken_chunk(stored: Stored) -> None:
    """A chunk that is gone from the store, but stands in the file that is replaced, is no loss."""
    await stored.restore(4)
    manifest = decode_manifest(await stored.store.get(stored.snapshots[4]), what="")
    shutil.copy(stored.folder / "t" / "out", stored.folder / "copy")
    for chunk in manifest.chunks:
        stored.store._objects.pop(chunk_key(Epoch(1), chunk.name), None)
    assert await stored.restore(4) == ()
