"""`replicad key`: made, written, never written over; shown by ids; found in a replica by the heads of its objects."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from replicad.encryption.keys import EncryptionKey, format_key, parse_keys
from replicad.store.database import database_store
from replicad.store.directory import DirectoryStore

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.cli.conftest import Command

OLD, NEW = (EncryptionKey(bytes([number]) * 32) for number in (1, 2))
TEXTS = {key: format_key(key.reveal()) for key in (OLD, NEW)}


def test_a_new_key(replicad: Command) -> None:
    """`key new` prints a key, another one each time, and needs no settings, not even right ones."""
    made = [parse_keys(replicad("key", "new", REPLICAD_SYNC_INTERVAL="nonsense").out)[0] for _ in range(2)]
    assert made[0] != made[1]
    answer = json.loads(replicad("key", "new", "--json").out)
    assert parse_keys(answer["key"])[0].id.hex() == answer["id"]


def test_a_new_key_in_a_file(replicad: Command, tmp_path: Path) -> None:
    """It is written for its owner's eyes alone, and never over another file: that could be the only copy of a key.

    Seen to fail with the file opened for writing as usual.
    """
    path = tmp_path / "key"
    ended = replicad("key", "new", "--output", str(path))
    assert ended.code == 0
    (key,) = parse_keys(path.read_text())
    assert key.id.hex() in ended.out
    assert path.read_text().strip() not in ended.out
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_text()
    again = replicad("key", "new", "--output", str(path))
    assert again.code == 64
    assert path.read_text() == before
    assert replicad("key", "new", "--output", str(tmp_path / "no" / "key")).code == 1


def test_ids(replicad: Command, tmp_path: Path) -> None:
    """`key id` shows the ids of what is configured, from a variable or a file, and no key."""
    ended = replicad("key", "id", REPLICAD_ENCRYPTION_KEY=" ".join(TEXTS.values()))
    assert [line.split()[0] for line in ended.out.splitlines()] == [OLD.id.hex(), NEW.id.hex()]
    assert not any(text[15:] in ended.out for text in TEXTS.values())
    file = tmp_path / "keys"
    file.write_text("\n".join(TEXTS.values()) + "\n")
    ended = replicad("key", "id", "--encryption-key-file", str(file), "--json")
    assert json.loads(ended.out) == {"keys": [OLD.id.hex(), NEW.id.hex()]}


def test_no_key_is_configured(replicad: Command) -> None:
    """Without a key `key id` says so."""
    assert "No key" in replicad("key", "id").out


@pytest.mark.parametrize(
    "arguments", [("id", "1f2e3d4c5b6a7988"), ("retire",), ("list", "--output", "x"), ("retire", "xyz"), ("make",)]
)
def test_wrong_uses(replicad: Command, arguments: tuple[str, ...]) -> None:
    """What makes no sense is a usage error."""
    ended = replicad("key", *arguments, REPLICAD_DATABASE="/x", REPLICAD_REPLICA="file:///x")
    assert ended.code == 64


def test_an_empty_variable_is_no_missing_one(replicad: Command) -> None:
    """TRAP: a secret that was lost on its way, so that the variable is empty, does not turn encryption off.

    Seen to fail with the variable passed over like that of any other setting.
    """
    ended = replicad("config", REPLICAD_ENCRYPTION_KEY="")
    assert ended.code == 64
    assert "REPLICAD_ENCRYPTION_KEY" in ended.err


@pytest.fixture
def replica(tmp_path: Path) -> dict[str, str]:
    """Return the settings of a replica that was rotated: a claim and an old segment under one key, a new one."""

    async def store() -> None:
        folder = DirectoryStore(tmp_path / "bucket")
        old = database_store(folder, "app.db", [OLD])
        for key in ("claims/00000001.json", "epochs/00000001/start.json", "handover/00000002.json"):
            await old.put(key, b"body")
        new = database_store(folder, "app.db", [NEW, OLD])
        await new.put("claims/00000002.json", b"body")
        await folder.put("app.db/epochs/00000001/chunks/stray", b"plain")
        await folder.close()

    asyncio.run(store())
    return {
        "REPLICAD_DATABASE": str(tmp_path / "app.db"),
        "REPLICAD_REPLICA": f"file://{tmp_path}/bucket",
        "REPLICAD_ENCRYPTION_KEY": f"{TEXTS[NEW]} {TEXTS[OLD]}",
    }


def test_what_needs_which(replicad: Command, replica: dict[str, str]) -> None:
    """`key list` counts the objects of each key, and those that somebody may still read; it needs no key."""
    ended = replicad("key", "list", "--json", **replica)
    rows = {row["id"]: row for row in json.loads(ended.out)["keys"]}
    assert {key: (row["objects"], row["needed_objects"]) for key, row in rows.items()} == {
        OLD.id.hex(): (3, 1),
        NEW.id.hex(): (1, 1),
        None: (1, 1),
    }
    assert rows[OLD.id.hex()]["given"]
    assert rows[OLD.id.hex()]["demanded"]
    text = replicad("key", "list", **replica).out
    assert OLD.id.hex() in text
    assert "none" in text


def test_a_key_is_retired(replicad: Command, replica: dict[str, str], tmp_path: Path) -> None:
    """A key is taken off when nothing needs it, and never the one that encrypts; only then can it be left out."""
    assert "1 objects that need" in replicad("key", "retire", OLD.id.hex(), **replica).err
    assert "does not encrypt any more" in replicad("key", "retire", NEW.id.hex(), **replica).err
    assert "a key that the replica demands" in replicad("key", "retire", "00" * 8, **replica).err
    alone = replica | {"REPLICAD_ENCRYPTION_KEY": TEXTS[NEW]}
    assert replicad("key", "retire", OLD.id.hex(), **alone).code == 12
    (tmp_path / "bucket/app.db/epochs/00000001/start.json").unlink()
    assert replicad("key", "retire", OLD.id.hex(), **replica).code == 0
    assert json.loads(replicad("key", "list", "--json", **alone).out)["keys"][0]["id"] == NEW.id.hex()
    ended = replicad("log", **alone)
    assert ended.code != 12, ended.err
