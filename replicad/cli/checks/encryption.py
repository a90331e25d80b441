"""Encryption: whether the keys that are given are those that the replica needs. Writes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.cli.checks.check import Check, fail, ok, skip
from replicad.errors import ReplicadError, StoreUnreachable
from replicad.store.keyrings import Keyrings, ids_text, read_keyring

if TYPE_CHECKING:
    from replicad.config import Settings
    from replicad.store.protocol import ObjectStore

_NAME = "encryption"
_ADVICE = "Give the keys that the replica needs, or set replica to another prefix: docs/operations.md, Encryption."


async def check_encryption(settings: Settings, objects: ObjectStore) -> Check:
    """Return whether what is stored fits the keys; `objects` are the database's, as they are stored."""
    try:
        keys = settings.encryption_keys
        if not keys:
            keyring = await read_keyring(objects)
            if keyring is not None:
                return fail(_NAME, f"the replica needs {ids_text(keyring.key_ids)}, and no key is given", _ADVICE)
            return ok(_NAME, "off: whoever can read the bucket can read the database")
        keyring = await Keyrings(objects, keys).current()
    except StoreUnreachable:
        return skip(_NAME, "not looked at, because the store is out of reach")
    except ReplicadError as error:
        return fail(_NAME, str(error), _ADVICE)
    if keyring is None:
        return ok(_NAME, f"nothing is stored yet; the first start encrypts with the key {keys[0].id.hex()}")
    return ok(_NAME, f"{ids_text(key.id for key in keys)} can read all, {keys[0].id.hex()} encrypts")
