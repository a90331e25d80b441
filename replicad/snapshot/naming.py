"""What chunks are called: by their content, so that equal pieces are stored once.

In a plain replica by the SHA-256 of it, which any tool can compute. In an encrypted one that would let whoever sees
the bucket tell which known contents are in it; there names are HMACs, under a key derived from the configured one.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from typing_extensions import Buffer


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkNames:
    """How the chunks of one replica are named."""

    keys: tuple[bytes, ...] = field(default=(), repr=False)
    """The first names new chunks; any may have named the old ones. None: SHA-256."""

    @property
    def method(self) -> str:
        """What a name is, for messages."""
        return "HMAC of the content" if self.keys else "SHA-256 of the content"

    def name(self, raw: Buffer) -> str:
        """Return the name of a new chunk: 64 hexadecimal digits."""
        return _hmac(self.keys[0], raw) if self.keys else hashlib.sha256(raw).hexdigest()

    def naming(self, name: str) -> Naming:
        """Return what finds out whether a chunk has this name, given its raw bytes in parts."""
        return Naming(self, name)

    def fits(self, name: str, raw: Buffer) -> bool:
        """Return whether a chunk of that name has this content."""
        if not self.keys:
            return name == self.name(raw)
        return any(name == _hmac(key, raw) for key in self.keys)


def _hmac(key: bytes, raw: Buffer) -> str:
    return hmac.digest(key, raw, "sha256").hex()


class _Digest(Protocol):
    def update(self, data: Buffer, /) -> None: ...
    def hexdigest(self) -> str: ...


class Naming:
    """The name of a chunk that is too large to be held whole."""

    def __init__(self, names: ChunkNames, name: str) -> None:
        self._name = name
        self._digests: list[_Digest] = [hmac.new(key, digestmod="sha256") for key in names.keys]
        if not self._digests:
            self._digests = [hashlib.sha256()]

    def update(self, raw: Buffer) -> None:
        """Take the next bytes."""
        for digest in self._digests:
            digest.update(raw)

    @property
    def found(self) -> str:
        """The name that the bytes so far have: the one asked for, if that may be."""
        found = [digest.hexdigest() for digest in self._digests]
        return self._name if self._name in found else found[0]


PLAIN_NAMES = ChunkNames()
"""Those of a replica that is not encrypted."""
