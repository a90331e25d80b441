"""Which keys the objects of a replica need, by their heads; and taking a key off that none needs any more."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from replicad.encryption.keyring import Keyring
from replicad.encryption.keys import ciphers
from replicad.encryption.sizes import HEADER_BYTES
from replicad.errors import ObjectMissing, UsageError
from replicad.layout import CLAIMS, HANDOVER, KEYRING, PROBES, claim_key, parse_claim
from replicad.restore.together import gather_bounded
from replicad.store.database import stored_objects
from replicad.store.keyrings import Keyrings, ids_text, read_keyring
from replicad.store.open import open_store

if TYPE_CHECKING:
    from replicad.config import DatabaseSettings, Settings
    from replicad.position import Epoch
    from replicad.store.protocol import ObjectStore, StoredObject

_CONCURRENCY = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What one key is needed for."""

    key_id: bytes | None  # None: no key, the objects are not encrypted
    given: bool  # it is configured here
    on_ring: bool  # the replica is read only by who has it
    objects: int
    stored_bytes: int
    needed: int  # of these objects, those that a reader or an owner may still ask for

    @property
    def name(self) -> str:
        """What people call it."""
        return "none" if self.key_id is None else self.key_id.hex()


async def find_uses(settings: Settings, database: DatabaseSettings) -> list[Use]:
    """Return the use of every key that the replica demands, or an object has: one GET of 52 bytes for each object.

    Raises:
        ReplicadError: the store cannot be read.
    """
    store = await open_store(database.replica, settings.store_options(concurrency=_CONCURRENCY), only_to_read=True)
    try:
        return await _find_uses(stored_objects(store, database.name), {key.id for key in settings.encryption_keys})
    finally:
        await store.close()


async def retire(settings: Settings, database: DatabaseSettings, key_id: bytes) -> tuple[bytes, ...]:
    """Take a key off the keyring; return those that stay.

    Raises:
        UsageError: it is not on it, it is the only one, the one that encrypts, or an object needs it.
        WrongKey: not all keys are given that the replica demands.
        ReplicadError: the store cannot be read or written.
    """
    store = await open_store(database.replica, settings.store_options(concurrency=_CONCURRENCY))
    try:
        return await _retire(stored_objects(store, database.name), settings, key_id)
    finally:
        await store.close()


async def _retire(objects: ObjectStore, settings: Settings, key_id: bytes) -> tuple[bytes, ...]:
    keys = settings.encryption_keys
    if not keys:
        raise _refused("the keys of the replica", "none configured")
    keyring = await Keyrings(objects, keys).current()
    ids = keyring.key_ids if keyring else ()
    if keyring is None or key_id not in ids:
        raise _refused(
            "a key that the replica demands", f"{key_id.hex()}, and it demands {ids_text(ids) if ids else 'none'}"
        )
    if key_id == keys[0].id or len(ids) == 1:
        raise _refused("a key that does not encrypt any more", f"{key_id.hex()}, the first that is configured")
    uses = await _find_uses(objects, {key.id for key in keys})
    needed = sum(use.needed for use in uses if use.key_id == key_id)
    if needed:
        raise _refused("a key that nothing needs", f"{needed} objects that need {key_id.hex()}")
    left = tuple(one for one in ids if one != key_id)
    await objects.put(KEYRING, Keyring(replica_id=keyring.replica_id, key_ids=left).encode())
    return left


def _refused(expected: str, found: str) -> UsageError:
    hint = "`replicad key list` shows what needs which. Old snapshots and segments go when their time is over."
    return UsageError(where="key retire", expected=expected, found=found, hint=hint)


async def _find_uses(objects: ObjectStore, given: set[bytes]) -> list[Use]:
    keyring = await read_keyring(objects)
    rows = [row async for row in objects.list("") if row.key != KEYRING]
    newest = max((epoch for row in rows if (epoch := parse_claim(row.key)) is not None), default=None)
    found = await gather_bounded((partial(_key_of, objects, row) for row in rows), _CONCURRENCY)
    on_ring = keyring.key_ids if keyring else ()
    uses = []
    for key_id in dict.fromkeys((*on_ring, *(one for one in found if one != b""))):
        theirs = [row for row, one in zip(rows, found, strict=True) if one == key_id]
        uses.append(
            Use(
                key_id=key_id,
                given=key_id in given,
                on_ring=key_id in on_ring,
                objects=len(theirs),
                stored_bytes=sum(row.size_bytes for row in theirs),
                needed=sum(_is_needed(row, newest) for row in theirs),
            )
        )
    return uses


async def _key_of(objects: ObjectStore, row: StoredObject) -> bytes | None:
    """Return the id of the key that an object needs, None when it needs none, b"" when it is gone."""
    sealing = ciphers()
    try:
        head = await objects.get(row.key, stop=HEADER_BYTES)
    except ObjectMissing:
        return b""
    if not sealing.is_sealed(head):
        return None
    key_id: bytes = sealing.decode_header(head, what=row.key).key_id
    return key_id


def _is_needed(row: StoredObject, newest: Epoch | None) -> bool:
    """Return whether somebody may read the object again: of claims the newest alone is, notes and probes pass."""
    if row.key.startswith(CLAIMS):
        return newest is not None and row.key == claim_key(newest)
    return not row.key.startswith((HANDOVER, PROBES))
