"""What a database that is opened has to do with the history that is stored: the same, ahead of it, or unknown.

Continuity is proven by checksums, never by existence, size or time. Either the state that stands here is the
recorded one; or the WAL still holds everything that came after the recorded one, and the state rebuilt for
that position has the recorded checksum. Anything else is a loss of continuity: no data is lost, but what came
between cannot be told apart any more, and the present state is stored as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from replicad.position import NO_WAL, Position, WALPosition, lock_page
from replicad.restore.request import Evidence
from replicad.sqlite.image import Image, overlay_through
from replicad.wal import PageTable, SaltsMoved

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from replicad.host.files import FileStamp
    from replicad.sqlite.source import Index, Source

_SCAN_BYTES = 4 << 20


class Continuity(Enum):
    """What was proven when a database was opened."""

    SAME = auto()  # the state here is the recorded one
    AHEAD = auto()  # the WAL holds every transaction since the recorded one
    LOST = auto()  # neither could be proven


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A stored transaction: the state after it, its commit time, and where in the WAL it ended, if that was kept."""

    position: Position
    ms: int
    wal: WALPosition = NO_WAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """Where to begin reading, and the page table as of there."""

    continuity: Continuity
    index: Index  # of exactly the state that the pin sees
    known: Known | None  # the stored transaction that reading goes on behind; None when continuity is lost
    table: PageTable
    position: WALPosition
    evidence: Evidence | None = None  # of the file, when that alone is the state


def open_at(source: Source, stored: Sequence[Known], evidence: Evidence | None = None) -> Opening:
    """Pin the source, hash every page, and find out which stored transaction it continues, newest first.

    There is more than one where a snapshot was stored ahead of the segment that leads to it. Who goes on behind an
    older one has to come through the newer ones: a disk of an earlier time would leave them off the line. Leaves the
    pin held.

    Args:
        source: the database.
        stored: the transactions that it may continue.
        evidence: of an earlier look at the file, or of a restore: saves reading it, if it still holds.
    """
    index = source.hold_exactly()
    # From here on nobody may copy anything into the file, where nothing is in a WAL.
    stamp = None if index.frames else source.stamp()
    table = _known(source, stamp, evidence)
    if table is None:
        table = hashed(Image.under_pin(source, index, pages=source.page_count()))
    seen = None if stamp is None else Evidence(stamp=stamp, table=table)
    here = wal_position(source, index)
    if stored and _is_state(table, stored[0].position):
        return Opening(
            continuity=Continuity.SAME, index=index, known=stored[0], table=table, position=here, evidence=seen
        )
    for number, known in enumerate(stored):
        for candidate in _candidates(source, index, known.wal):
            try:
                earlier = _rewound(source, table, index=index, to=candidate, pages=known.position.pages)
                proven = _is_state(earlier, known.position) and _comes_through(
                    source, earlier, index=index, behind=candidate, states=stored[:number]
                )
            except SaltsMoved:
                continue
            if proven:
                return Opening(continuity=Continuity.AHEAD, index=index, known=known, table=earlier, position=candidate)
    return Opening(continuity=Continuity.LOST, index=index, known=None, table=table, position=here, evidence=seen)


def _known(source: Source, stamp: FileStamp | None, evidence: Evidence | None) -> PageTable | None:
    """Return the table that the evidence has, which is the caller's then, if nobody wrote into the file since."""
    if evidence is None:
        return None
    size = source.page_size
    table = evidence.table_for(stamp, page_size=size, pages=source.page_count())
    return None if table is None or table.differing(1, [source.read_file(0, size)]) else table


def _comes_through(
    source: Source, table: PageTable, *, index: Index, behind: WALPosition, states: Sequence[Known]
) -> bool:
    """Return whether the WAL leads from the table's state, at a position, through all of these."""
    missing = {(known.position.checksum, known.position.pages) for known in states}
    if not missing:  # as at nearly every start
        return True
    rolled = table.copy()
    step = max(1, _SCAN_BYTES // source.page_size)
    for first in range(behind.frame + 1, index.frames + 1, step):
        frames = source.read(first, min(step, index.frames - first + 1), index.salts)
        for pgno, image, pages in zip(frames.pgnos, frames.images, frames.commit_pages, strict=True):
            rolled.write([pgno], [image])
            if pages:
                missing.discard((rolled.commit(pages), pages))
        if not missing:
            return True
    return False


def _is_state(table: PageTable, position: Position) -> bool:
    return (table.checksum, table.pages) == (position.checksum, position.pages)


def hashed(image: Image) -> PageTable:
    """Return the page table of a whole image; reads every page."""
    table = PageTable(image.page_size)
    skipped = lock_page(image.page_size)
    for first, images in image.batches(_SCAN_BYTES):
        pgnos = range(first, first + len(images))
        if skipped in pgnos:
            at = skipped - first
            table.write([*pgnos[:at], *pgnos[at + 1 :]], [*images[:at], *images[at + 1 :]])
        else:
            table.write(pgnos, images)
    table.commit(image.pages)
    return table


def wal_position(source: Source, index: Index) -> WALPosition:
    """Return the position behind everything that `index` says is committed; a pin is held on it."""
    if not index.salts:
        return NO_WAL
    checksum = source.wal.frame_checksum(index.frames, page_size=source.page_size) if index.frames else b""
    return WALPosition(salts=index.salts, frame=index.frames, frame_checksum=checksum or b"")


def _candidates(source: Source, index: Index, known: WALPosition) -> Iterator[WALPosition]:
    """Yield the positions in the present WAL at which the recorded state may have stood."""
    if not index.salts:
        return
    if index.salts == known.salts:
        if known.frame == 0:
            yield known
        elif known.frame <= index.frames:
            found = source.wal.frame_checksum(known.frame, page_size=source.page_size)
            if found == known.frame_checksum:
                yield known
    else:  # the WAL was reset since; perhaps right behind the recorded state
        yield WALPosition(salts=index.salts, frame=0, frame_checksum=b"")


def _rewound(source: Source, table: PageTable, *, index: Index, to: WALPosition, pages: int) -> PageTable:
    """Return the table as of an earlier position, if the database file was not written since.

    Whether it was cannot be seen; the caller compares the checksum.
    """
    size = source.page_size
    before = overlay_through(source, to.frame, index.salts)
    changed = set(range(table.pages + 1, pages + 1))
    step = max(1, _SCAN_BYTES // size)
    for first in range(to.frame + 1, index.frames + 1, step):
        frames = source.read(first, min(step, index.frames - first + 1), index.salts)
        changed.update(frames.pgnos)
    earlier = table.copy()
    changed.discard(lock_page(size))
    for pgno in sorted(page for page in changed if page <= pages):
        frame = before.get(pgno)
        image = source.wal.read_page(frame, page_size=size) if frame else source.read_file((pgno - 1) * size, size)
        earlier.write([pgno], [image])
    earlier.commit(pages)
    return earlier
