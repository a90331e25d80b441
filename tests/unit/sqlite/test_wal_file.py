from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from replicad.host.files import identity_at
from replicad.sqlite.wal_file import WALFile
from replicad.wal import SaltsMoved

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.sqlite.conftest import Application

PAGE_SIZE = 4096


@pytest.fixture
def wal(database: Path, application: Application) -> Iterator[WALFile]:
    """A WAL of three commits."""
    for name in "xyz":
        application.run(f"INSERT INTO t VALUES (NULL, '{name}')")
    found = WALFile(database)
    yield found
    found.close()


def test_no_wal(tmp_path: Path) -> None:
    """A WAL that does not exist yet is no error: it has no header, no size and no frame."""
    wal = WALFile(tmp_path / "none.db")
    assert (wal.header(), wal.size_bytes(), wal.was_replaced()) == (None, 0, False)
    assert wal.frame_checksum(1, page_size=PAGE_SIZE) is None
    assert wal.identity is None
    wal.close()


@pytest.mark.parametrize("content", [b"", b"\0" * 32, b"\x37\x7f\x06\x82" + b"\0" * 28, b"\xff" * 31])
def test_a_header_that_is_none(tmp_path: Path, content: bytes) -> None:
    """An empty WAL, one whose header is being written, and garbage have no header."""
    (tmp_path / "app.db-wal").write_bytes(content)
    wal = WALFile(tmp_path / "app.db")
    assert wal.header() is None
    wal.close()


def test_frames(wal: WALFile) -> None:
    """Frames are read by their numbers from 1, each with its page number and its commit mark."""
    header = wal.header()
    assert header is not None
    frames = wal.read(1, 3, page_size=PAGE_SIZE, salts=header.salts)
    assert list(frames.pgnos) == [2, 2, 2]
    assert all(frames.commit_pages)
    assert wal.read_page(3, page_size=PAGE_SIZE) == bytes(frames.images[2])
    assert wal.frame_checksum(2, page_size=PAGE_SIZE) == frames.checksum(1)
    assert wal.frame_checksum(4, page_size=PAGE_SIZE) is None


def test_frames_that_are_not_there(wal: WALFile) -> None:
    """A WAL that ends early, or has other salts by now, was begun anew: that is what is said, whatever was read."""
    header = wal.header()
    assert header is not None
    for first, count, salts in ((3, 2, header.salts), (9, 1, header.salts), (1, 3, b"12345678")):
        with pytest.raises(SaltsMoved):
            wal.read(first, count, page_size=PAGE_SIZE, salts=salts)
    with pytest.raises(SaltsMoved):
        wal.read_page(9, page_size=PAGE_SIZE)


def test_replaced(wal: WALFile, database: Path, tmp_path: Path) -> None:
    """Another file under the WAL's name is noticed, and so is none; which one was open is known after the end."""
    path = Path(f"{database}-wal")
    wal.header()
    assert not wal.was_replaced()
    before = identity_at(path)
    path.rename(tmp_path / "aside")
    assert wal.was_replaced()
    path.write_bytes(b"")
    assert wal.was_replaced()
    wal.close()
    assert wal.identity == before
