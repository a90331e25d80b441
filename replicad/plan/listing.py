"""What a few LISTs say: the objects of one database, by the numbers in their keys.

Objects that are none of replicad's are counted and otherwise left alone: a bucket may hold other things.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.layout import (
    ManifestKey,
    ObjectKind,
    SegmentKey,
    kind_of,
    parse_chunk,
    parse_claim,
    parse_end,
    parse_manifest,
    parse_segment,
    parse_start,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from replicad.position import Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """Where a segment stands in a roll-up."""

    rollup: SegmentKey
    offset: int  # of its first byte


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentObject:
    """A stored segment, or a roll-up of segments: its key taken apart, and its size.

    A member of a roll-up has the key that it had as an object of its own, and is fetched from the roll-up.
    """

    key: SegmentKey
    size_bytes: int
    inside: Inside | None = None

    @property
    def name(self) -> str:
        """The key of the object that holds it, relative to the database's prefix."""
        return str(self.key if self.inside is None else self.inside.rollup)

    @property
    def what(self) -> str:
        """What messages call it."""
        return self.name if self.inside is None else f"{self.name} (transactions {self.key.first} to {self.key.last})"

    @property
    def offset(self) -> int:
        """Where it begins in the object that holds it."""
        return 0 if self.inside is None else self.inside.offset

    @property
    def is_rollup(self) -> bool:
        """Whether it is a roll-up: segments one behind the other."""
        return self.key.level > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestObject:
    """A stored snapshot manifest: its key taken apart, and its size."""

    key: ManifestKey
    size_bytes: int

    @property
    def name(self) -> str:
        """The object's key, relative to the database's prefix."""
        return str(self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The objects of one database, in no particular order."""

    claims: frozenset[Epoch]
    starts: frozenset[Epoch]
    ends: frozenset[Epoch]
    segments: tuple[SegmentObject, ...]  # roll-ups too: they hold the same transactions once more
    manifests: tuple[ManifestObject, ...]
    chunks: int  # chunk keys seen: a reader of the history skips most of them
    foreign: int  # keys that are none of replicad's

    @property
    def epochs(self) -> frozenset[Epoch]:
        """Every epoch of which something but a claim or a chunk was listed."""
        written = {found.key.epoch for found in self.segments} | {found.key.epoch for found in self.manifests}
        return self.starts | self.ends | written


class _Sorter:
    """Puts each key where it belongs; the kinds are tried in the order of how often they occur."""

    def __init__(self) -> None:
        self.claims: set[Epoch] = set()
        self.starts: set[Epoch] = set()
        self.ends: set[Epoch] = set()
        self.segments: list[SegmentObject] = []
        self.manifests: list[ManifestObject] = []
        self.chunks = 0
        self.foreign = 0

    def take(self, key: str, size_bytes: int) -> None:
        segment = parse_segment(key)
        if segment is not None:
            # A key that would be written otherwise is not ours: fetching it by its numbers would miss it.
            if str(segment) == key and 0 < segment.first <= segment.last and segment.epoch > 0:
                self.segments.append(SegmentObject(key=segment, size_bytes=size_bytes))
                return
        elif parse_chunk(key) is not None:
            self.chunks += 1
            return
        elif self._take_manifest(key, size_bytes) or self._take_record(key) or kind_of(key) in _BESIDE:
            return
        self.foreign += 1

    def _take_manifest(self, key: str, size_bytes: int) -> bool:
        manifest = parse_manifest(key)
        if manifest is None or str(manifest) != key or manifest.epoch == 0:
            return False
        self.manifests.append(ManifestObject(key=manifest, size_bytes=size_bytes))
        return True

    def _take_record(self, key: str) -> bool:
        for parse, epochs in ((parse_claim, self.claims), (parse_start, self.starts), (parse_end, self.ends)):
            epoch = parse(key)
            if epoch is not None and epoch > 0:
                epochs.add(epoch)
                return True
        return False


_BESIDE = frozenset({ObjectKind.NOTE, ObjectKind.PROBE, ObjectKind.KEYRING, ObjectKind.MARK})
"""Kinds that are replicad's, and tell nothing of what the history is."""


def read_listing(objects: Iterable[tuple[str, int]]) -> Listing:
    """Return what the (key, size in bytes) pairs of any number of LISTs say; a key listed twice counts once."""
    sorter = _Sorter()
    for key, size_bytes in dict(objects).items():
        sorter.take(key, size_bytes)
    return Listing(
        claims=frozenset(sorter.claims),
        starts=frozenset(sorter.starts),
        ends=frozenset(sorter.ends),
        segments=tuple(sorter.segments),
        manifests=tuple(sorter.manifests),
        chunks=sorter.chunks,
        foreign=sorter.foreign,
    )
