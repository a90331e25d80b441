"""A database that is changed where it stands: when it may be, and in which order it is."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from array import array
from contextlib import closing
from functools import reduce
from operator import xor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from replicad.position import lock_page
from replicad.restore.standing import Standing
from replicad.wal.pagetable import page_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NEVER = threading.Event()
PAGES = 400


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a file with a header, which is all that is looked at, and noise."""
    found = tmp_path / "t" / "app.db"
    found.parent.mkdir()
    found.write_bytes(b"SQLite format 3\0\x10\0" + os.urandom(PAGES * 4096 - 18))
    return found


@pytest.fixture
def standing(path: Path) -> Iterator[Standing]:
    """Return it, not opened yet."""
    found = Standing(path)
    yield found
    found.close()


def test_the_checksum_is_that_of_the_state(path: Path, standing: Standing) -> None:
    """All pages count, whatever number of threads share them."""
    body = path.read_bytes()
    assert standing.open()
    for part in range(3):
        standing.add(part, 3, NEVER)
    assert standing.state.pages == PAGES
    assert standing.state.checksum == reduce(
        xor, (page_hash(body[n * 4096 : (n + 1) * 4096], n + 1) for n in range(PAGES))
    )


@pytest.mark.parametrize("keep_hashes", [False, True])
def test_the_lock_page_does_not_count(tmp_path: Path, *, keep_hashes: bool) -> None:
    """Whatever stands in the page of SQLite's lock bytes is no part of the state, and has no hash.

    Seen to fail without either of the two: the checksum, the hash.
    """
    path, size = tmp_path / "app.db", 65536
    lock = lock_page(size)
    with path.open("wb") as file:
        file.write(b"SQLite format 3\0\0\x01")
        file.truncate((lock + 1) * size)
        file.seek((lock - 1) * size)
        file.write(b"x" * size)
    standing = Standing(path, keep_hashes=keep_hashes)
    with closing(standing):
        assert standing.open()
        for part in range(2):
            standing.add(part, 2, NEVER)
        hashes = standing.hashes_for(lock + 3)
        head = b"SQLite format 3\0\0\x01".ljust(size, b"\0")
        expected = [page_hash(head, 1), *(page_hash(bytes(size), pgno) for pgno in range(2, lock + 2))]
        expected[lock - 1] = 0
        assert standing.state.checksum == reduce(xor, expected)
        assert hashes == (array("Q", [*expected, 0, 0]) if keep_hashes else None)


@pytest.mark.parametrize("what", ["link", "wal", "journal", "short", "no header", "odd", "folder", "missing"])
def test_what_may_not_be_changed_where_it_stands(path: Path, standing: Standing, what: str) -> None:
    """A second name, a WAL, a journal, or anything but a database of whole pages: a new file is made instead.

    Seen to fail for the link (its other name showed the new pages) and the WAL without `_open`'s and `_has_more`.
    """
    beside = path.with_name
    changes: dict[str, Callable[[], Any]] = {
        "link": lambda: beside("other").hardlink_to(path),
        "wal": lambda: beside("app.db-wal").write_bytes(b"x"),
        "journal": lambda: beside("app.db-journal").write_bytes(b""),
        "short": lambda: path.write_bytes(b"mine"),
        "no header": lambda: path.write_bytes(bytes(8192)),
        "odd": lambda: path.write_bytes(path.read_bytes() + b"x"),
        "folder": lambda: path.replace(beside("other")).with_name("app.db").mkdir(),
        "missing": lambda: path.replace(beside("other")),
    }
    changes[what]()
    assert not standing.open()
    assert not standing.open(), "and nothing is locked"


def test_an_empty_wal_is_none(path: Path, standing: Standing) -> None:
    """What SQLite leaves behind after a checkpoint that truncates holds nothing."""
    path.with_name("app.db-wal").write_bytes(b"")
    assert standing.open()


def test_nobody_opens_it_meanwhile(tmp_path: Path) -> None:
    """Another process finds the database locked from the first look to the end, and then free."""
    path = tmp_path / "app.db"
    code = f"import sqlite3; print(sqlite3.connect({str(path)!r}, timeout=0).execute('SELECT * FROM t').fetchall())"

    def ask() -> str:
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        return ended.stdout.strip() or ended.stderr.strip().splitlines()[-1]

    subprocess.run(
        [sys.executable, "-c", f"import sqlite3; sqlite3.connect({str(path)!r}).execute('CREATE TABLE t (a)')"],
        check=True,
    )
    standing = Standing(path)
    assert standing.open()
    assert "locked" in ask()
    standing.begin([1], tmp_path / "journal")
    assert "locked" in ask(), "the journal is not hot while somebody holds the lock"
    standing.close()
    assert ask() == "[]"
    assert not path.with_name("app.db-journal").exists()


def test_the_journal_is_on_the_disk_before_the_first_page_and_gone_after_the_last(
    path: Path, standing: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRAP: a power cut: no page is overwritten before journal and folder are synced, none is unsynced at the end.

    Seen to fail without each of the syncs of the journal and of the folder.
    """
    done: list[str] = []

    def noted(name: str) -> None:
        real = getattr(os, name)

        def call(first: Any, *rest: Any, **named: Any) -> Any:  # noqa: ANN401 - of any of them
            where = str(Path(f"/proc/self/fd/{first}").readlink() if isinstance(first, int) else first)
            done.append(f"{name} {where.removeprefix(str(path.parent)).strip('/') or 'folder'}")
            return real(first, *rest, **named)

        monkeypatch.setattr(os, name, call)

    for name in ("write", "fsync", "rename", "pwritev", "unlink"):
        noted(name)
    assert standing.open()
    standing.begin([1, 5, 400], path.with_name("journal"))
    image = standing.image(PAGES)
    image.write_frames([(5, 0)], bytes(4096), 0)
    image.sync()
    standing.commit()
    assert done == [
        "write journal",
        "fsync journal",
        "rename journal",
        "fsync folder",
        "pwritev app.db",
        "fsync app.db",
        "unlink app.db-journal",
        "fsync folder",
    ]


def test_what_is_not_committed_is_undone(tmp_path: Path) -> None:
    """A database that was changed and made longer is as it was once it is closed."""
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute("CREATE TABLE t AS SELECT randomblob(50000)")
        connection.commit()
    before = path.read_bytes()
    standing = Standing(path)
    assert standing.open()
    standing.begin([1, 2, 5], tmp_path / "journal")
    image = standing.image(standing.pages + 3)
    image.write_frames([(1, 0), (2, 1), (5, 2), (standing.pages + 1, 3)], os.urandom(4 * 4096), 0)
    assert path.read_bytes() != before
    standing.close()
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["app.db"]
