"""What `doctor` says of the keys; it writes nothing, or its probe would decide which key a replica has."""

from __future__ import annotations

import pytest

from replicad.cli.checks.encryption import check_encryption
from replicad.config import load
from replicad.encryption.keys import EncryptionKey, format_key
from replicad.store.database import database_store, stored_objects
from replicad.store.memory import MemoryStore
from tests.support.faulty_store import FaultyStore

OLD, NEW = (EncryptionKey(bytes([number]) * 32) for number in (1, 2))
EMPTY, PLAIN, SEALED = (), (None,), (OLD,)


@pytest.mark.parametrize(
    ("stored", "given", "verdict", "said"),
    [
        (EMPTY, (), "ok", "off"),
        (EMPTY, (NEW,), "ok", f"the first start encrypts with the key {NEW.id.hex()}"),
        (PLAIN, (), "ok", "off"),
        (PLAIN, (NEW,), "fail", "is not encrypted"),
        (SEALED, (), "fail", f"needs the key {OLD.id.hex()}, and no key is given"),
        (SEALED, (NEW,), "fail", OLD.id.hex()),
        (SEALED, (NEW, OLD), "ok", f"{NEW.id.hex()} encrypts"),
    ],
)
async def test_keys(
    stored: tuple[EncryptionKey | None, ...], given: tuple[EncryptionKey, ...], verdict: str, said: str
) -> None:
    """Each pair of a replica and the keys that are given has its verdict, and the replica is as it was."""
    beneath = MemoryStore()
    for key in stored:
        await database_store(beneath, "app.db", [key] if key else []).put("claims/00000001.json", b"claim")
    before = dict(beneath._objects)
    environ = {"REPLICAD_DATABASE": "/data/app.db", "REPLICAD_REPLICA": "file:///backup"}
    if given:
        environ["REPLICAD_ENCRYPTION_KEY"] = " ".join(format_key(key.reveal()) for key in given)
    check = await check_encryption(load(flags={}, environ=environ).settings, stored_objects(beneath, "app.db"))
    assert check.verdict == verdict
    assert said in check.found
    assert bool(check.advice) == (verdict == "fail")
    assert beneath._objects == before


async def test_a_store_out_of_reach() -> None:
    """What is said of the store already is not said again."""
    beneath = FaultyStore(MemoryStore())
    beneath.reachable = False
    environ = {"REPLICAD_DATABASE": "/data/app.db", "REPLICAD_REPLICA": "file:///backup"}
    assert (await check_encryption(load(flags={}, environ=environ).settings, beneath)).verdict == "skip"
