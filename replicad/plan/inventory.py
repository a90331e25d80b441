"""All objects of one database, with the store's time on each, and what its snapshots are made of. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicad.layout import MarkKey, ObjectKind, kind_of, parse_mark

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


_NAMES = {
    ObjectKind.MANIFEST: "snapshot",
    ObjectKind.CLAIM: "record",
    ObjectKind.START: "record",
    ObjectKind.END: "record",
    ObjectKind.KEYRING: "record",
}


def kind_name(key: str) -> str:
    """Return what an object is, for people and metrics: those of its kinds that they need not tell apart are one."""
    kind = kind_of(key)
    return _NAMES.get(kind, kind.value)
