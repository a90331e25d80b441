"""Keyrings of two places: of one replica, or nothing is copied; and there before anything that needs them.

An encrypted replica is copied as it is stored. So its copy has its id, and needs the keys that its objects need. What
was encrypted under another id, or not at all, is never put beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.encryption.keyring import Keyring
from replicad.encryption.sizes import HEADER_BYTES
from replicad.errors import (
    ConditionalWritesUnsupported,
    CreateUndecided,
    Damaged,
    ObjectExists,
    StoreUnreachable,
    WrongKey,
)
from replicad.layout import CLAIMS, EPOCHS, KEYRING
from replicad.mirror.sameness import other_history
from replicad.observe import events
from replicad.observe.logging import get_logger
from replicad.store.keyrings import read_keyring

if TYPE_CHECKING:
    from replicad.mirror.side import Side
    from replicad.store.encrypted import EncryptedStore

_ATTEMPTS = 5  # of a keyring that others change too


async def refuse_other_encryption(source: Side, destination: Side) -> None:
    """Raise unless both are plain, or both are encrypted as one replica, or the destination holds nothing.

    Raises:
        WrongKey: the source needs other keys than those given, or none.
        OtherHistory: the destination is another replica, or is encrypted and the source is not, or the other way round.
        ReplicadError: a store failed.
    """
    if source.sealed is not None:
        found = await _other_replica(await source.sealed.replica_id(), source.sealed, destination)
    else:
        found = await _encrypted(source, destination)
    if found is not None:
        raise other_history(source, destination, found)


async def _encrypted(source: Side, destination: Side) -> str | None:
    try:
        async for _ in destination.read.list(CLAIMS):
            pass
    except WrongKey:
        async for _ in source.read.list(CLAIMS):  # raises when it is the source that is encrypted
            pass
        return "it is encrypted"
    return None


async def _other_replica(replica_id: bytes, sealed: EncryptedStore, destination: Side) -> str | None:
    keyring = await read_keyring(destination.stored)
    if keyring is not None:
        if keyring.replica_id == replica_id:
            return None
        return f"its keyring is of the replica {keyring.replica_id.hex()}, not {replica_id.hex()}"
    for prefix in (CLAIMS, EPOCHS):
        async for row in destination.stored.list(prefix):
            try:
                found = sealed.header_of(row.key, await destination.stored.get(row.key, stop=HEADER_BYTES)).replica_id
            except Damaged:
                return f"it is not encrypted: {row.key}"
            return None if found == replica_id else f"{row.key} is of the replica {found.hex()}, not {replica_id.hex()}"
    return None


async def bring_keyring(source: Side, destination: Side, *, needed: bytes | None = None) -> frozenset[bytes]:
    """Have the destination's keyring name every key that the source's does; return the ids of the keys it names.

    What it names beside them it keeps: something there may need them. `needed` is the id of a key that it has to name
    in any case.

    Raises:
        OtherHistory: it is the keyring of another replica.
        ReplicadError: a store failed.
    """
    wanted = await _wanted(source, needed)
    for _ in range(_ATTEMPTS):
        there = await read_keyring(destination.stored)
        if there is not None and there.replica_id != wanted.replica_id:
            raise other_history(source, destination, f"its keyring is of the replica {there.replica_id.hex()}")
        if there is not None and there.key_ids[: len(wanted.key_ids)] == wanted.key_ids:
            return frozenset(there.key_ids)
        kept = there.key_ids if there is not None else ()
        keyring = Keyring(replica_id=wanted.replica_id, key_ids=tuple(dict.fromkeys((*wanted.key_ids, *kept))))
        await _store(destination, keyring, replaces=there is not None)
    raise StoreUnreachable(store=destination.stored.url, operation=f"put {KEYRING}", found="another one afterwards")


async def _wanted(source: Side, needed: bytes | None) -> Keyring:
    if source.sealed is None:
        raise AssertionError
    keyring = await read_keyring(source.stored)
    replica_id = keyring.replica_id if keyring is not None else await source.sealed.replica_id()
    ids = keyring.key_ids if keyring is not None else ()  # somebody deleted it: what is copied says what it needs
    if needed is not None and needed not in ids:
        ids = (needed, *ids)
    return Keyring(replica_id=replica_id, key_ids=ids)


async def _store(destination: Side, keyring: Keyring, *, replaces: bool) -> None:
    body = keyring.encode()
    try:
        if replaces:
            await destination.stored.put(KEYRING, body)
        else:
            await destination.stored.create(KEYRING, body)
    except (ObjectExists, CreateUndecided):  # what stands there tells
        return
    except ConditionalWritesUnsupported:
        await destination.stored.put(KEYRING, body)
    keys = [key_id.hex() for key_id in keyring.key_ids]
    get_logger().info(events.KEYRING_STORED, store=destination.stored.url, keys=keys)
