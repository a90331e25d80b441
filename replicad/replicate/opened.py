"""A database as it is opened: its source with the pin held, and what it has to do with what is stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.replicate.continuity import Known, Opening, open_at
from replicad.sqlite.source import Source

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from replicad.plan.snapshot import LogSince
    from replicad.restore.request import Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A source with its pin held, and what was found out about it."""

    source: Source
    opening: Opening


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What the store holds of the line when a follower starts."""

    known: Sequence[Known]  # newest first; empty: nothing
    log: LogSince


def open_source(path: Path, known: Sequence[Known], evidence: Evidence | None = None) -> Opened:
    """Open a database that is in WAL mode; the pin is held when this returns. `evidence`: see `open_at`."""
    source = Source(path)
    try:
        return Opened(source=source, opening=open_at(source, known, evidence))
    except BaseException:
        source.close()
        raise
