"""All objects of one database, with the store's time on each, and what its snapshots are made of. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicad.layout import (
    MarkKey,
    parse_ack,
    parse_chunk,
    parse_claim,
    parse_end,
    parse_handover,
    parse_manifest,
    parse_mark,
    parse_segment,
    parse_start,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from replicad.plan.line import History
    from replicad.plan.listing import ManifestObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One object as a LIST shows it."""

    key: str
    size_bytes: int
    modified_ms: int  # by the store's clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What was listed, and what was read of it."""

    history: History
    rows: Mapping[str, Row]  # by key: everything below the database's prefix
    contents: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """By a manifest's key: the keys of its chunks. One that could not be read is missing here."""

    def is_whole(self, manifest: ManifestObject) -> bool:
        """Return whether the manifest was read, and all its chunks are listed: whether it can be restored."""
        chunks = self.contents.get(manifest.name)
        return chunks is not None and all(chunk in self.rows for chunk in chunks)

    def modified_ms(self, name: str) -> int:
        """Return when an object was stored, by the store's clock."""
        return self.rows[name].modified_ms

    @property
    def marks(self) -> tuple[MarkKey, ...]:
        """The preserve marks, by TXID."""
        return tuple(marks_among(sorted(self.rows)))


def marks_among(keys: Iterable[str]) -> list[MarkKey]:
    """Return the preserve marks among some keys."""
    found = (parse_mark(key) for key in keys)
    return [mark for mark in found if mark is not None]


def kind_of(key: str) -> str:
    """Return what an object is, for people and metrics: segment, chunk, snapshot, mark, record, note or foreign."""
    if parse_segment(key) is not None:
        return "segment"
    if parse_chunk(key) is not None:
        return "chunk"
    if parse_manifest(key) is not None:
        return "snapshot"
    if parse_mark(key) is not None:
        return "mark"
    if any(parse(key) is not None for parse in (parse_claim, parse_start, parse_end)):
        return "record"
    return "note" if parse_handover(key) is not None or parse_ack(key) is not None else "foreign"
