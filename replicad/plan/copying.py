"""In which order the objects of a replica go to another place, so that it can be restored from there at any moment.

A restore of the last state believes the highest start, and the highest transaction that any key tells of. So what is
newest goes first: the newest snapshot behind its chunks, its epoch's start, then one after another what was committed
since. From there on the other place can be restored, and every object that follows only adds history before that: those
may go in any order, but a manifest behind its chunks, and the start of an epoch before anything else of it.

Claims go before all of that: whoever begins to work there must not take a number that has been given away. Preserve
marks go with them: whoever deletes there must know what to leave alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.layout import (
    ObjectKind,
    claim_key,
    end_key,
    kind_of,
    parse_chunk,
    parse_end,
    parse_segment,
    start_key,
)

if TYPE_CHECKING:
    from replicad.plan.line import Line
    from replicad.plan.listing import Listing, ManifestObject
    from replicad.position import TXID, Epoch


HISTORY = frozenset(ObjectKind) - {ObjectKind.KEYRING, ObjectKind.NOTE, ObjectKind.PROBE, ObjectKind.FOREIGN}


def is_history(key: str) -> bool:
    """Return whether a key is that of an object that belongs to the history: notes of a handover, probes do not."""
    return kind_of(key) in HISTORY


def is_mark(key: str) -> bool:
    """Return whether a key is that of a preserve mark."""
    return kind_of(key) is ObjectKind.MARK


def is_manifest(key: str) -> bool:
    """Return whether a key is that of a snapshot's manifest."""
    return kind_of(key) is ObjectKind.MANIFEST


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What goes when, of a replica as it was listed."""

    claims: tuple[str, ...]  # first
    snapshot: ManifestObject | None  # the newest of the line: its chunks are next, in any order
    newest: tuple[str, ...]  # then these, one after another
    starts: tuple[str, ...]  # then these, and then the rest
    head: Epoch
    last: TXID  # of the line
    _manifests: frozenset[str]
    _ended: bool

    def includes(self, key: str) -> bool:
        """Return whether an object belongs to what was listed; if not, something before it may still be missing."""
        segment = parse_segment(key)
        if segment is not None:
            return segment.epoch < self.head or (segment.epoch == self.head and segment.last <= self.last)
        chunk = parse_chunk(key)
        if chunk is not None:
            return chunk[0] <= self.head
        if is_manifest(key):
            return key in self._manifests
        ended = parse_end(key)
        if ended is not None:
            return ended < self.head or (ended == self.head and self._ended)
        return key in self.starts or key in self.newest or key in self.claims or is_mark(key)


def course_of(line: Line, listing: Listing) -> Course:
    """Return the course for all objects of a listing, whose newest line is `line`."""
    snapshot = line.manifests[-1] if line.manifests else None
    newest: list[str] = []
    begin, since = line.epochs[0].epoch, 0
    if snapshot is not None:
        newest.append(snapshot.name)
        begin, since = snapshot.key.epoch, snapshot.key.txid
    for epoch in (part.epoch for part in line.epochs if part.epoch >= begin):
        newest.append(start_key(epoch))
        # By their first transaction, as the line has them: so each one joins what is there already.
        newest += [part.name for part in line.segments if part.stored.key.epoch == epoch and part.until > since]
    if line.head in listing.ends:
        newest.append(end_key(line.head))
    starts = (start_key(epoch) for epoch in sorted(listing.starts, reverse=True))
    return Course(
        claims=tuple(claim_key(epoch) for epoch in sorted(listing.claims)),
        snapshot=snapshot,
        newest=tuple(newest),
        starts=tuple(key for key in starts if key not in newest),
        head=line.head,
        last=line.last_txid,
        _manifests=frozenset(found.name for found in listing.manifests),
        _ended=line.head in listing.ends,
    )
