"""The keyring: the one object of an encrypted replica that is not encrypted. It holds no secret.

It says that the replica is encrypted, under which id, and which keys are needed to read all of it. It stands among
the claims, so that the listing which everybody begins with shows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from replicad.encryption.keys import MAX_KEYS
from replicad.errors import Damaged, NewerFormat

MAGIC = b"\x89RPDKEY\n"
VERSION = 1
"""The version that is written, and the newest that is read."""

_HEAD = Struct("<8sII16s")  # magic, version, number of keys, replica id
_KEY_ID_BYTES = 8
_HASH_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyring:
    """Which replica this is, and which keys its objects need."""

    replica_id: bytes
    key_ids: tuple[bytes, ...]  # the newest first

    def encode(self) -> bytes:
        """Return it as it is stored."""
        body = _HEAD.pack(MAGIC, VERSION, len(self.key_ids), self.replica_id) + b"".join(self.key_ids)
        return body + _hash(body)


def decode_keyring(body: bytes, *, what: str) -> Keyring:
    """Return the keyring in `body`; `what` names the object in messages.

    Raises:
        Damaged: the bytes are not a keyring.
        NewerFormat: they are one of a later version.
    """
    if len(body) < _HEAD.size or not body.startswith(MAGIC):
        raise Damaged(what=what, where="head", expected="a keyring", found=f"{len(body)} other bytes")
    _, version, count, replica_id = _HEAD.unpack_from(body)
    if version > VERSION:
        raise NewerFormat(what=what, found=version, expected=VERSION)
    size_bytes = _HEAD.size + count * _KEY_ID_BYTES + _HASH_BYTES
    if not 0 < count <= MAX_KEYS or len(body) != size_bytes:
        raise Damaged(what=what, where="size", expected=f"{size_bytes} bytes for {count} keys", found=len(body))
    if _hash(body[:-_HASH_BYTES]) != body[-_HASH_BYTES:]:
        raise Damaged(what=what, where="hash", expected="that of the bytes before it", found="another")
    starts = range(_HEAD.size, size_bytes - _HASH_BYTES, _KEY_ID_BYTES)
    return Keyring(replica_id=replica_id, key_ids=tuple(body[at : at + _KEY_ID_BYTES] for at in starts))


def _hash(body: bytes) -> bytes:
    import xxhash  # noqa: PLC0415 - who has no key needs it later, if at all

    return xxhash.xxh3_64_digest(body)
