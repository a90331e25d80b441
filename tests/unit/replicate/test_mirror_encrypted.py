"""A mirror of an encrypted replica: the same ciphertext, behind the keyring, through a change of the key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.encryption.keyring import decode_keyring
from replicad.encryption.keys import EncryptionKey
from replicad.encryption.sealing import decode_header
from replicad.layout import KEYRING
from replicad.plan.copying import is_history
from replicad.replicate.follower import Follower
from replicad.replicate.mirroring import MirrorDuty
from replicad.replicate.rollup import RollingUp
from replicad.restore.request import RestoreRequest
from replicad.restore.restore import restore
from replicad.store.encrypted import EncryptedStore
from tests.support.scene import rows_of
from tests.support.waiting import wait_until_async
from tests.unit.mirror.conftest import objects
from tests.unit.replicate.conftest import Gate
from tests.unit.replicate.test_mirror import until_complete
from tests.unit.replicate.test_rollup import FEW

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.unit.replicate.conftest import Stage

KEY, NEW = (EncryptionKey(bytes([number]) * 32) for number in (1, 2))


class Guarded(Gate):
    """Refuses an object whose key its keyring does not name yet."""

    unnamed: tuple[str, ...] = ()

    async def put(self, key: str, body: bytes) -> None:
        """Store an object."""
        await self._look(key, body)
        await super().put(key, body)

    async def create(self, key: str, body: bytes) -> None:
        """Store an object if its key is free."""
        await self._look(key, body)
        await super().create(key, body)

    async def _look(self, key: str, body: bytes) -> None:
        if key == KEYRING:
            return
        stored = await objects(self.store)
        named = decode_keyring(stored[KEYRING], what=KEYRING).key_ids if KEYRING in stored else ()
        if decode_header(body, what=key).key_id not in named:
            self.unnamed = (*self.unnamed, key)


async def same(stage: Stage, there: Gate) -> bool:
    """Return whether both hold the same, byte for byte, but for what is no part of the history."""
    ours = {key: body for key, body in (await stage.objects()).items() if is_history(key) or key == KEYRING}
    return ours == await objects(there.store)


async def test_it_follows_through_roll_ups_and_a_new_key(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is stored is in the mirror as it is stored, never before its key is on the keyring there; it is restored."""

    def few(self: Follower) -> list[RollingUp | MirrorDuty]:
        mirrors = [MirrorDuty(mirror=one, following=self.following) for one in self.following.mirrors]
        return [RollingUp(self.following, self._store, limits=FEW), *mirrors]

    monkeypatch.setattr(Follower, "_duties", few)
    stage.flags |= {"rollup_grace": "1s"}
    stage.keys, there = (KEY,), Guarded()
    mirror = stage.mirror(there)
    await stage.begin()
    for number in range(2, 14):
        stage.insert(number)
        await stage.sync()
    await wait_until_async(lambda: stage.metrics.rolled_up_deleted >= 12)
    await until_complete(mirror)
    assert await same(stage, there)
    assert any(key.endswith(".segs") for key in await objects(there.store))

    await stage.stop()
    stage.keys = (NEW, KEY)
    stage.mirrors.clear()
    mirror = stage.mirror(there)
    await stage.start()
    stage.insert(14)
    await stage.sync()
    await stage.follower.snapshot("command")
    await until_complete(mirror)
    assert await same(stage, there)
    assert there.unnamed == ()
    keyring = decode_keyring((await objects(there.store))[KEYRING], what=KEYRING)
    assert keyring.key_ids == (NEW.id, KEY.id)
    await restore(EncryptedStore(there.store, [NEW, KEY]), RestoreRequest(path=tmp_path / "restored.db"))
    assert rows_of(tmp_path / "restored.db") == list(range(15))
    assert not stage.metrics.mirror_errors[mirror.label]


async def test_a_plain_mirror_of_an_encrypted_replica_is_refused(stage: Stage) -> None:
    """What holds a plain history is not written to, and the other way round."""
    there = Gate()
    mirror = stage.mirror(there)
    await stage.begin()
    await until_complete(mirror)
    await stage.stop()
    stage.lose_disk()
    before = await objects(there.store)
    stage.store, stage.keys = Gate(), (KEY,)
    stage.mirrors.clear()
    mirror = stage.mirror(there)
    await stage.begin()
    await stage.until("mirror_failed")
    assert "not encrypted" in str(mirror.problem)
    assert await objects(there.store) == before
