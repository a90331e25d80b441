"""A second reader of encrypted replicas, written from docs/format.md and not from the package."""

from __future__ import annotations

import base64
import hashlib
import hmac
import struct
from dataclasses import dataclass

import xxhash
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from replicad.snapshot import ChunkNames

PIECE = 65536
TAG = 16
HEADER = 52


def secret_of(text: str) -> bytes:
    """Return the 32 bytes that a line of text stands for."""
    prefix, digits = text[:15], text[15:]
    assert prefix == "replicad-key-1-"
    raw = base64.b32decode(digits.upper() + "=" * (-len(digits) % 8))
    assert len(raw) == 36
    assert hashlib.sha256(prefix.encode() + raw[:32]).digest()[:4] == raw[32:]
    return raw[:32]


def derive(secret: bytes, salt: bytes, info: bytes, n_bytes: int) -> bytes:
    """Return what HKDF-SHA256 makes of it."""
    return HKDF(algorithm=SHA256(), length=n_bytes, salt=salt, info=info).derive(secret)


def key_id(secret: bytes) -> bytes:
    """Return the key's id."""
    return derive(secret, b"", b"replicad key id", 8)


def chunk_name(secret: bytes, replica_id: bytes, raw: bytes) -> str:
    """Return the name of a chunk."""
    return hmac.new(derive(secret, replica_id, b"replicad chunk names", 32), raw, hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ring:
    """A keyring."""

    replica_id: bytes
    key_ids: list[bytes]


def read_ring(body: bytes) -> Ring:
    """Return the keyring in an object."""
    magic, version, count, replica_id = struct.unpack_from("<8sII16s", body)
    assert magic == bytes.fromhex("8952 5044 4b45 590a")
    assert version == 1
    assert len(body) == 32 + 8 * count + 8
    assert xxhash.xxh3_64(body[:-8]).digest() == body[-8:]
    return Ring(replica_id=replica_id, key_ids=[body[at : at + 8] for at in range(32, 32 + 8 * count, 8)])


def content_size(size: int) -> int:
    """Return the size of the content of an object of a size."""
    pieces = -(-(size - HEADER) // (PIECE + TAG))
    return size - HEADER - TAG * pieces


def unseal(secrets: dict[bytes, bytes], replica_id: bytes, key: str, body: bytes) -> bytes:
    """Return the content of an object; `secrets` by key id."""
    magic, version, used, replica, salt = struct.unpack_from("<8sI8s16s16s", body)
    assert magic == bytes.fromhex("8952 5044 454e 430a")
    assert version == 1
    assert replica == replica_id
    cipher = AESGCM(derive(secrets[used], salt, b"replicad object", 32))
    bound = body[:HEADER] + key.encode()
    pieces = [body[at : at + PIECE + TAG] for at in range(HEADER, len(body), PIECE + TAG)]
    content = b""
    for number, piece in enumerate(pieces):
        nonce = struct.pack("<Q", number) + (b"\1" if number == len(pieces) - 1 else b"\0") + bytes(3)
        content += cipher.decrypt(nonce, piece, bound)
    assert len(content) == content_size(len(body))
    return content


def names_of(objects: dict[str, bytes], *texts: str) -> ChunkNames:
    """Return how the chunks of a database are named."""
    ring = read_ring(objects["claims/keyring"])
    keys = (derive(secret_of(text), ring.replica_id, b"replicad chunk names", 32) for text in texts)
    return ChunkNames(keys=tuple(keys))


def unseal_all(objects: dict[str, bytes], *texts: str) -> dict[str, bytes]:
    """Return the contents of all objects of a database, by key; `texts` are the keys as people have them."""
    secrets = {key_id(secret): secret for secret in map(secret_of, texts)}
    ring = read_ring(objects["claims/keyring"])
    return {
        key: unseal(secrets, ring.replica_id, key, body) for key, body in objects.items() if key != "claims/keyring"
    }
