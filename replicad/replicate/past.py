"""What is stored of a database, as a command finds it that goes on from there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.position import TXID, Position
from replicad.replicate.head import read_heads, read_line, read_manifest

if TYPE_CHECKING:
    from replicad.plan.line import Line
    from replicad.plan.listing import Listing
    from replicad.replicate.continuity import Known
    from replicad.snapshot import Manifest
    from replicad.store.protocol import ObjectStore
    from replicad.wal import PageTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """The history as it was listed."""

    listing: Listing
    line: Line | None
    known: Known | None  # the newest state
    manifest: Manifest | None  # of the newest snapshot

    @property
    def head(self) -> Position | None:
        """The newest state; None: there is no history."""
        return self.known.position if self.known else None

    @property
    def next_txid(self) -> TXID:
        """The first that nothing on the line was ever called, restorable or not."""
        told = self.line.last_txid if self.line else TXID(0)
        return TXID(max(told, self.known.position.txid if self.known else 0) + 1)

    @property
    def newest_ms(self) -> int:
        """The latest commit time: none may be earlier from here on."""
        if self.line is None:
            return 0
        keys = [found.key.ms for found in self.line.manifests]
        keys += [part.until_ms for part in self.line.segments if part.until_ms is not None]
        return max(keys, default=0)

    @property
    def is_at_rest(self) -> bool:
        """Whether the newest epoch that was claimed was ended."""
        return max(self.listing.claims, default=0) in self.listing.ends

    def is_newest(self, table: PageTable) -> bool:
        """Whether this is the newest state already."""
        head = self.head
        return head is not None and (head.checksum, head.pages) == (table.checksum, table.pages)


async def look(store: ObjectStore) -> Past:
    """Read what is stored.

    Raises:
        StoreUnreachable, StoreRefused: it cannot be read.
        Damaged, ObjectMissing, NewerFormat: what has to be known of it is damaged, or missing.
    """
    listing, line = await read_line(store)
    known = await read_heads(store, line) if line else []
    manifest = await read_manifest(store, line.manifests[-1].name) if line and line.manifests else None
    return Past(listing=listing, line=line, known=known[0] if known else None, manifest=manifest)
