"""What Litestream 0.3 stored: generations, each with snapshots and the WAL from there on. Pure.

    generations/<16 hex>/snapshots/<index, 8 hex>.snapshot.lz4          the database file
    generations/<16 hex>/wal/<index, 8 hex>_<offset, 8 or 16 hex>.wal.lz4    bytes of the WAL, from that offset on

The index counts the times the WAL began again. A snapshot is of the file as it was, or a little later, when the WAL
of its index began.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.errors import HistoryGap

if TYPE_CHECKING:
    from collections.abc import Iterable

    from replicad.store.protocol import StoredObject

_KEY = re.compile(
    r"(?P<below>(?:.*/)?)generations/(?P<id>[0-9a-f]{16})/"
    r"(?:snapshots/(?P<snapshot>[0-9a-f]{8})\.snapshot|wal/(?P<index>[0-9a-f]{8})_(?P<offset>[0-9a-f]{8,16})\.wal)\.lz4"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedFile:
    """An LZ4 frame: a snapshot (`offset` None), or a piece of a WAL."""

    key: str
    index: int
    offset: int | None  # of its first raw byte in the WAL
    size_bytes: int  # as it is stored
    written_ms: int  # by the store's clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One unbroken history of Litestream's."""

    id: str
    files: tuple[PackedFile, ...]

    @property
    def written_ms(self) -> int:
        """When something was stored in it last."""
        return max(file.written_ms for file in self.files)

    def newest(self, *, label: str) -> list[PackedFile]:
        """Return the files to apply, in order: the newest snapshot, and the WAL since.

        Raises:
            HistoryGap: there is no snapshot, or a part of the WAL is missing.
        """
        snapshots = [file for file in self.files if file.offset is None]
        if not snapshots:
            raise self._gap(label, "no snapshot")
        snapshot = max(snapshots, key=lambda file: file.index)
        pieces = [file for file in self.files if file.offset is not None and file.index >= snapshot.index]
        pieces.sort(key=lambda file: (file.index, file.offset or 0))
        index = snapshot.index - 1
        for piece in pieces:
            if piece.offset == 0:
                index += 1
            if piece.index != index:
                raise self._gap(label, f"{piece.key}, and not the beginning of its WAL or of the one before it")
        return [snapshot, *pieces]

    def _gap(self, label: str, found: str) -> HistoryGap:
        return HistoryGap(
            database=f"{label} (generation {self.id})", target="its newest state", found=found, nearest="not known"
        )


def read_generations(objects: Iterable[StoredObject]) -> tuple[list[Generation], set[str]]:
    """Return the replica's generations, and below which prefixes other replicas stand."""
    files: dict[str, list[PackedFile]] = {}
    elsewhere: set[str] = set()
    for found in objects:
        match = _KEY.fullmatch(found.key)
        if match is None:
            continue
        if match["below"]:
            elsewhere.add(match["below"])
            continue
        files.setdefault(match["id"], []).append(
            PackedFile(
                key=found.key,
                index=int(match["snapshot"] or match["index"], 16),
                offset=None if match["snapshot"] else int(match["offset"], 16),
                size_bytes=found.size_bytes,
                written_ms=round(found.modified_at.timestamp() * 1000),
            )
        )
    return [Generation(id=one, files=tuple(found)) for one, found in files.items()], elsewhere
