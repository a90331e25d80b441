"""Keys as people hold them: one line of text each, with a checksum, so that a typing error is no other key."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import TYPE_CHECKING

from replicad.errors import UsageError

if TYPE_CHECKING:
    from types import ModuleType

PREFIX = "replicad-key-1-"
KEY_BYTES = 32
MAX_KEYS = 16
"""Of one replica: what a rotation a month needs in a year, and some more."""

_CHECKSUM_BYTES = 4
_BASE32 = 8  # characters to a group
_SEPARATORS = re.compile(r"[\s,]+")


class EncryptionKey:
    """A secret of 32 bytes; whatever prints it shows its id."""

    __slots__ = ("_secret", "id")

    def __init__(self, secret: bytes) -> None:
        if len(secret) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, found {len(secret)}")
        self._secret = secret
        self.id: bytes = ciphers().key_id(secret)
        """8 bytes that stand in every object encrypted with it, and tell nothing of it."""

    def reveal(self) -> bytes:
        """Return the secret itself."""
        return self._secret

    def __repr__(self) -> str:
        return f"EncryptionKey({self.id.hex()})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EncryptionKey) and other._secret == self._secret

    def __hash__(self) -> int:
        return hash(self.id)


def ciphers() -> ModuleType:
    """Return the module that knows the ciphers.

    Raises:
        UsageError: the package `cryptography` is not installed.
    """
    try:
        from replicad.encryption import sealing  # noqa: PLC0415 - an extra, that few installations have
    except ImportError as error:
        raise UsageError(
            where="encryption_key",
            expected="the package cryptography",
            found="an installation without it",
            hint="Install it: pip install 'replicad[encryption]'. Nothing was stored.",
        ) from error
    return sealing


def format_key(secret: bytes) -> str:
    """Return the line of text that stands for a secret of 32 bytes."""
    text = base64.b32encode(secret + _checksum(secret)).decode().rstrip("=").lower()
    return PREFIX + text


def parse_keys(text: str, *, where: str = "encryption_key") -> tuple[EncryptionKey, ...]:
    """Return the keys in a text, in their order; white space or commas stand between them.

    Raises:
        UsageError: there is none, one is no key, or there is one twice; `where` names the place. The message holds
            nothing of the text.
    """
    words = [word for word in _SEPARATORS.split(text) if word]
    keys = tuple(EncryptionKey(_secret(word, number, where)) for number, word in enumerate(words, start=1))
    if not 0 < len(keys) <= MAX_KEYS:
        raise _refused(where, f"1 to {MAX_KEYS} keys", f"{len(keys)}")
    if len(set(keys)) != len(keys):
        raise _refused(where, "each key once", "one of them twice")
    return keys


def _secret(word: str, number: int, where: str) -> bytes:
    lowered = word.lower()
    if not lowered.startswith(PREFIX):
        raise _refused(where, f"a key that begins with {PREFIX}", f"another word as number {number}")
    digits = lowered.removeprefix(PREFIX).upper()
    try:
        found = base64.b32decode(digits + "=" * (-len(digits) % _BASE32))
    except binascii.Error:
        found = b""
    secret, checksum = found[:KEY_BYTES], found[KEY_BYTES:]
    if len(secret) != KEY_BYTES or checksum != _checksum(secret) or format_key(secret) != lowered:
        raise _refused(where, "a whole key", f"a mistyped or shortened one as number {number}: its checksum is wrong")
    return secret


def _checksum(secret: bytes) -> bytes:
    return hashlib.sha256(PREFIX.encode() + secret).digest()[:_CHECKSUM_BYTES]


def _refused(where: str, expected: str, found: str) -> UsageError:
    return UsageError(where=where, expected=expected, found=found, hint="`replicad key new` makes a key.")
