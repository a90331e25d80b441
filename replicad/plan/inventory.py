"""All objects of one database, with the store's time on each, and what its snapshots are made of. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicad.layout import (
    MarkKey,
    is_probe,
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
    from collections.abc import Callable, Iterable, Mapping

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
    """Return what an object is, for people and metrics: one of the kinds below, or foreign."""
    return next((kind for kind, is_one in _KINDS if is_one(key)), "foreign")


def _parses(*parsers: Callable[[str], object]) -> Callable[[str], bool]:
    return lambda key: any(parse(key) is not None for parse in parsers)


_KINDS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("segment", _parses(parse_segment)),
    ("chunk", _parses(parse_chunk)),
    ("snapshot", _parses(parse_manifest)),
    ("mark", _parses(parse_mark)),
    ("record", _parses(parse_claim, parse_start, parse_end)),
    ("note", _parses(parse_handover, parse_ack)),
    ("probe", is_probe),
)
