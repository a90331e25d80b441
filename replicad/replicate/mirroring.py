"""The duty of keeping a mirror up to date, and what it asks of the owner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from replicad.position import TXID
    from replicad.replicate.following import Following
    from replicad.replicate.mirror import Mirror


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """What a mirror wants to know, of the database that is followed."""

    following: Following

    async def until_durable(self, txid: TXID) -> None:
        """Wait until a transaction is durable in the replica; for ever when another instance owns the database now."""
        await self.following.ledger.until_durable(txid)

    async def may_delete(self) -> bool:
        """Look whether the database is still ours, was claimed, and is not being handed over."""
        return await self.following.tenure.may_delete()


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorDuty:
    """Keeps one mirror up to date while the database is followed. Implements `Duty`."""

    mirror: Mirror
    following: Following
    name: str = "mirror"

    async def run(self) -> None:
        """Keep it."""
        await self.mirror.keep(Owner(following=self.following))
