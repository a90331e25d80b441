"""What is asked of a restore, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from replicad.plan.target import Latest, Target
from replicad.position import Position

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from pathlib import Path

    from replicad.host.files import FileStamp
    from replicad.plan.line import Line
    from replicad.plan.listing import Listing
    from replicad.position import TXID, Epoch
    from replicad.snapshot import Manifest
    from replicad.wal.pagetable import PageTable

MIB = 1 << 20


class Integrity(StrEnum):
    """How far SQLite itself looks at the restored file, beyond the checksum that always has to match."""

    NONE = "none"
    QUICK = "quick"
    FULL = "full"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a restore may take of this machine and of the store."""

    concurrency: int = 16  # requests under way at once
    memory_bytes: int = 128 * MIB  # for objects in flight; 2 bytes a page come on top, 10 with `evidence`
    threads: int = 3  # that unpack, hash and write


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The hash of every page of a file; it holds as long as the file has the stamp."""

    stamp: FileStamp
    table: PageTable

    def table_for(self, stamp: FileStamp | None, *, page_size: int, pages: int) -> PageTable | None:
        """Return the table, if it is that of a file with this stamp, of so many pages of this size."""
        table = self.table
        return table if (stamp, page_size, pages) == (self.stamp, table.page_size, table.pages) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreRequest:
    """One restore.

    An existing file at `path` is an error (`TargetExists`, before anything is fetched) unless `force` is set. It then
    stands until the new one is proven, lends the chunks that are the same in both, and is replaced in one step;
    with `keep_replaced` it stays under another name.
    """

    path: Path
    target: Target = field(default_factory=Latest)
    epoch: Epoch | None = None  # the line of this epoch to its own end; None: the newest line
    listed: Line | Awaitable[Listing] | None = None  # that line, or what it is found in, if that was asked for before
    force: bool = False
    keep_replaced: bool = False
    integrity: Integrity = Integrity.NONE
    standing: Evidence | None = None  # of what stands at `path`, which then need not be read
    evidence: bool = False  # return that of what is put there (8 bytes a page)
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a restore would do, for `--dry-run`; upper bounds, since pages written twice are fetched once."""

    target: Target
    position: Position
    commit_ms: int
    page_size: int
    snapshot: str  # the manifest's key
    segments: tuple[str, ...]  # keys, oldest first
    fetched_bytes: int
    requests: int

    @property
    def database_bytes(self) -> int:
        """Size of the database file."""
        return self.position.pages * self.page_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A database that was proven equal to the source, and is in place."""

    path: Path  # links resolved
    database_id: str
    epoch: Epoch  # whose owner committed the transaction
    head: Epoch  # the newest epoch of the line that was restored
    txid: TXID
    commit_ms: int
    checksum: int
    pages: int
    page_size: int
    manifest: Manifest  # the snapshot that was used: what its chunks hold is stored already
    manifest_key: str
    segments: int
    fetched_bytes: int
    reused_bytes: int  # taken from the file that was there before
    requests: int
    seconds: float
    moved_aside: tuple[Path, ...]  # under their new names
    unusable: tuple[str, ...]  # keys of objects that were found damaged or gone, and that another way led around
    in_place: bool = False  # the file that was there became this one, by the pages that differ
    evidence: Evidence | None = None  # when it was asked for, and there is something to know the file by

    @property
    def position(self) -> Position:
        """The transaction that was reached."""
        return Position(epoch=self.epoch, txid=self.txid, checksum=self.checksum, pages=self.pages)
