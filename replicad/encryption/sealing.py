"""The form of an encrypted object: a header, then pieces that each carry a tag (docs/format.md).

Every object has a key of its own, derived from the configured key and the random salt in its header, so that the
nonce may be a plain count. It holds the number of the piece and whether it is the last: a piece that is moved,
missing or doubled fails, and so does an object that was cut off. The header and the name of the object go into every
tag: an object under another name, or of another replica, fails as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from replicad.encryption.sizes import HEADER_BYTES, MAGIC, PIECE_BYTES, SEALED_PIECE_BYTES
from replicad.errors import Damaged, NewerFormat

if TYPE_CHECKING:
    from typing_extensions import Buffer

VERSION = 1
"""The version that is written, and the newest that is read."""

KEY_ID_BYTES = 8
REPLICA_ID_BYTES = 16
SALT_BYTES = 16

_HEADER = Struct(f"<8sI{KEY_ID_BYTES}s{REPLICA_ID_BYTES}s{SALT_BYTES}s")
_NONCE = Struct("<QB3x")
_DERIVED_BYTES = 32


def _derive(secret: bytes, *, salt: bytes, info: bytes, n_bytes: int = _DERIVED_BYTES) -> bytes:
    return HKDF(algorithm=SHA256(), length=n_bytes, salt=salt, info=info).derive(secret)


def key_id(secret: bytes) -> bytes:
    """Return what names a key in headers: it cannot be turned back."""
    return _derive(secret, salt=b"", info=b"replicad key id", n_bytes=KEY_ID_BYTES)


def new_replica_id(secret: bytes, url: str) -> bytes:
    """Return the id of a replica that begins at a URL: two that begin it at once with one key give it the same."""
    return _derive(secret, salt=b"", info=b"replicad replica id\0" + url.encode(), n_bytes=REPLICA_ID_BYTES)


def naming_key(secret: bytes, replica_id: bytes) -> bytes:
    """Return the key that chunks of a replica are named with."""
    return _derive(secret, salt=replica_id, info=b"replicad chunk names")


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What an encrypted object says of itself, in the clear."""

    key_id: bytes
    replica_id: bytes
    salt: bytes

    def encode(self) -> bytes:
        """Return it as it is stored."""
        return _HEADER.pack(MAGIC, VERSION, self.key_id, self.replica_id, self.salt)


def is_sealed(body: bytes) -> bool:
    """Return whether these are the first bytes of an encrypted object."""
    return body.startswith(MAGIC)


def decode_header(body: bytes, *, what: str) -> Header:
    """Return the header at the beginning of an object.

    Raises:
        Damaged: it does not begin with one.
        NewerFormat: it is one of a later version.
    """
    if len(body) < HEADER_BYTES or not is_sealed(body):
        found = f"{len(body)} bytes" if len(body) < HEADER_BYTES else "another beginning"
        raise Damaged(what=what, where="header", expected="that of an encrypted object", found=found)
    _, version, found_key, replica_id, salt = _HEADER.unpack_from(body)
    if version > VERSION:
        raise NewerFormat(what=what, found=version, expected=VERSION)
    if version != VERSION:
        raise Damaged(what=what, where="version", expected=VERSION, found=version)
    return Header(key_id=found_key, replica_id=replica_id, salt=salt)


class ObjectCipher:
    """One object's cipher.

    Args:
        secret: the key that the header names.
        header: the object's.
        name: its key in the store, relative to the database's prefix.
    """

    def __init__(self, secret: bytes, header: Header, name: str) -> None:
        self.header = header.encode()
        self._name = name
        self._bound = self.header + name.encode()
        self._cipher = AESGCM(_derive(secret, salt=header.salt, info=b"replicad object"))

    def seal(self, body: Buffer, *, first: int = 0, ends: bool) -> list[bytes]:
        """Return the sealed pieces of `body`, which begins with piece number `first`.

        Without `ends` the body is a whole number of pieces, and more follow.
        """
        view = memoryview(body).cast("B")
        count = max(1, -(-len(view) // PIECE_BYTES)) if ends else len(view) // PIECE_BYTES
        return [
            self._cipher.encrypt(
                _NONCE.pack(first + number, ends and number == count - 1),
                view[number * PIECE_BYTES : (number + 1) * PIECE_BYTES],
                self._bound,
            )
            for number in range(count)
        ]

    def open(self, sealed: Buffer, *, first: int = 0, ends: bool | None) -> bytes:
        """Return the content of pieces that follow one another, all of them proven.

        Args:
            sealed: the pieces, of which only the last may be short.
            first: the number of the first of them.
            ends: whether the last of them ends the object; None: it may or may not.

        Raises:
            Damaged: one of them is not what was stored there.
        """
        view = memoryview(sealed).cast("B")
        count = max(1, -(-len(view) // SEALED_PIECE_BYTES))
        opened = []
        for number in range(count):
            piece = view[number * SEALED_PIECE_BYTES : (number + 1) * SEALED_PIECE_BYTES]
            last = ends if number == count - 1 else False
            if last is None and len(piece) < SEALED_PIECE_BYTES:
                last = True
            opened.append(self._open_one(piece, first + number, last=last))
        return opened[0] if len(opened) == 1 else b"".join(opened)

    def _open_one(self, piece: memoryview, number: int, *, last: bool | None) -> bytes:
        for flag in (last,) if last is not None else (False, True):
            try:
                return self._cipher.decrypt(_NONCE.pack(number, flag), piece, self._bound)
            except InvalidTag:
                continue
        raise Damaged(
            what=self._name,
            where=f"piece {number}",
            expected="what its tag vouches for",
            found="other bytes, or those of an object that was cut off or exchanged",
        )
