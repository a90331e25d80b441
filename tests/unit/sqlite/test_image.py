from __future__ import annotations

import os
from typing import TYPE_CHECKING

import apsw
import pytest

from replicad.position import lock_page
from replicad.sqlite.image import Image, overlay_through, split
from replicad.sqlite.source import Source
from replicad.wal import SaltsMoved

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
@pytest.mark.parametrize("copied", ["nothing", "some", "all"])
def test_an_image_is_what_the_pin_sees(tmp_path: Path, page_size: int, copied: str) -> None:
    """The image is byte for byte what SQLite shows, wherever the newest version of a page stands, and remains so.

    Behind it writers commit, checkpoints run and the WAL begins anew: the pin holds what the image needs.
    """
    path = tmp_path / "app.db"
    writer = apsw.Connection(str(path))
    writer.pragma("page_size", page_size)
    writer.pragma("journal_mode", "wal")
    writer.pragma("wal_autocheckpoint", 0)
    writer.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, v)")
    source = Source(path)
    try:
        for number in range(40):
            writer.execute("INSERT OR REPLACE INTO t VALUES (?, randomblob(1000))", (number % 25,))
            if copied == "some" and number == 20:
                writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        if copied == "all":
            writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        expected = writer.serialize("main")
        index = source.hold_exactly()
        assert (index.frames == index.backfilled) == (copied == "all")
        image = Image.under_pin(source, index, pages=source.page_count())
        assert image.read(1, image.pages) == expected
        for _ in range(30):
            writer.execute("UPDATE t SET v = randomblob(1500)")
            writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        assert image.read(1, image.pages) == expected
        whole = b"".join(bytes(page) for _, batch in image.batches(3 * page_size) for page in batch)
        assert whole == expected
        assert [first for first, _ in image.batches(3 * page_size)] == list(range(1, image.pages + 1, 3))
    finally:
        source.close()
        writer.close()


def test_the_lock_page_is_zeros(tmp_path: Path) -> None:
    """The page at 1 GiB reads as zeros, whatever stands there: SQLite stores nothing in it, and locks its bytes."""
    path, size = tmp_path / "app.db", 65536
    writer = apsw.Connection(str(path))
    writer.pragma("page_size", size)
    writer.execute("CREATE TABLE t (n)")
    writer.close()
    pages = lock_page(size) + 2
    os.truncate(path, pages * size)  # sparse
    with path.open("r+b") as file:
        file.seek((lock_page(size) - 2) * size)
        file.write(b"a" * size + b"b" * size + b"c" * size)
    source = Source(path)
    try:
        image = Image(source, pages=pages, overlay={})
        before, locked, behind = (bytes(page) for page in split(image.read(lock_page(size) - 1, 3), size))
        assert (before, locked, behind) == (b"a" * size, bytes(size), b"c" * size)
        assert image.read(lock_page(size), 1) == bytes(size)
    finally:
        source.close()


def test_an_overlay_of_a_wal_that_began_anew(database: Path) -> None:
    """Frames of another WAL are never mixed in: the reader is told."""
    writer = apsw.Connection(str(database))
    source = Source(database)
    try:
        writer.execute("INSERT INTO t VALUES (NULL, 'x')")
        index = source.index()
        assert overlay_through(source, index.frames, index.salts) == {2: 1}
        with pytest.raises(SaltsMoved):
            overlay_through(source, index.frames, b"12345678")
    finally:
        source.close()
        writer.close()
