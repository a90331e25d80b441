"""What chunks are called: by their content, so that equal pieces are stored once.

In a plain replica by the SHA-256 of it, which any tool can compute. In an encrypted one that would let whoever sees
the bucket tell which known contents are in it; there names are HMACs, under a key derived from the configured one.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

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

    def fits(self, name: str, raw: Buffer) -> bool:
        """Return whether a chunk of that name has this content."""
        if not self.keys:
            return name == self.name(raw)
        return any(name == _hmac(key, raw) for key in self.keys)


def _hmac(key: bytes, raw: Buffer) -> str:
    return hmac.digest(key, raw, "sha256").hex()


PLAIN_NAMES = ChunkNames()
"""Those of a replica that is not encrypted."""
