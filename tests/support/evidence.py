"""What a restore says of the file that it has put in place, held against the file."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import pytest

from replicad.host.files import FileIdentity
from replicad.position import lock_page
from replicad.wal.pagetable import page_hash

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from replicad.restore.request import Evidence


def hashes_of(path: Path, size: int) -> array[int]:
    """Return the hash of each page that stands in a file; 0 for the lock page."""
    body, lock = path.read_bytes(), lock_page(size)
    pages = ((at // size + 1, body[at : at + size]) for at in range(0, len(body), size))
    return array("Q", (page_hash(image, pgno) if pgno != lock else 0 for pgno, image in pages))


def holds(evidence: Evidence | None, path: Path) -> bool:
    """Return whether the evidence is of this very file, page by page."""
    assert evidence is not None
    table, stamp, found = evidence.table, evidence.stamp, path.stat()
    assert table.hashes() == hashes_of(path, table.page_size)
    assert table.pages == found.st_size // table.page_size
    seen = (FileIdentity.told_by(found), found.st_size, found.st_mtime_ns)
    return seen == (stamp.identity, stamp.size_bytes, stamp.modified_ns)


@pytest.fixture
def fine_clock() -> Iterator[None]:
    """Take it that the clock by which files are stamped has no ticks: tests are done within one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("replicad.host.files._TICK_NS", 0)
        yield
