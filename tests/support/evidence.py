"""What a restore says of the file that it has put in place, held against the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from replicad.host.files import FileIdentity
from replicad.position import lock_page
from replicad.wal.pagetable import page_hash

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from replicad.restore.request import Evidence


def holds(evidence: Evidence | None, path: Path) -> bool:
    """Return whether the evidence is of this very file, page by page."""
    assert evidence is not None
    table, body = evidence.table, path.read_bytes()
    size, lock = table.page_size, lock_page(table.page_size)
    assert table.pages == len(body) // size
    for pgno in range(1, table.pages + 1):
        expected = page_hash(body[(pgno - 1) * size : pgno * size], pgno) if pgno != lock else 0
        assert table.hash_of(pgno) == expected, pgno
    found, stamp = path.stat(), evidence.stamp
    identity = FileIdentity(device=found.st_dev, inode=found.st_ino)
    return (identity, found.st_size, found.st_mtime_ns) == (stamp.identity, stamp.size_bytes, stamp.modified_ns)


@pytest.fixture
def fine_clock() -> Iterator[None]:
    """Take it that the clock by which files are stamped has no ticks: tests are done within one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("replicad.host.files._TICK_NS", 0)
        yield
