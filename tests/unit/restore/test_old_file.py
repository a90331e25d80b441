"""The file that stands at the target already."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import apsw
import pytest

from replicad.restore.old_file import OldFile, is_in_use
from replicad.snapshot import chunk_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def make_database(path: Path, *, mode: str = "wal") -> apsw.Connection:
    """Return a connection to a new database, with a row in it; of the SQLite that asks for its locks."""
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", mode)
    connection.execute("CREATE TABLE t (x); INSERT INTO t VALUES (1)")
    return connection


@contextmanager
def opened_elsewhere(path: Path) -> Iterator[None]:
    """Have another process, with the standard library's SQLite, keep the database open."""
    program = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM t').fetchall(); print(1)"
    command = [sys.executable, "-uc", f"{program}; sys.stdin.read()", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        yield
        process.stdin.close()


def test_chunks_are_lent_when_their_hash_says_so(tmp_path: Path) -> None:
    """A chunk is taken from the old file at any of its places, and only if its bytes have its name."""
    body = os.urandom(10_000)
    (tmp_path / "a").write_bytes(body)
    old = OldFile(tmp_path / "a")
    old.open()
    assert old.lends
    piece = body[4096:8192]
    assert old.chunk(chunk_name(piece), 4096, [0, 4096]) == piece
    assert old.chunk(chunk_name(piece), 4096, [0]) is None
    assert old.chunk(chunk_name(piece), 4096, [8192]) is None, "the file ends before"
    assert old.chunk(chunk_name(b""), 4096, []) is None
    old.close()


def test_nothing_is_lent_by_what_is_no_file(tmp_path: Path) -> None:
    """No file, or a folder, has nothing to lend."""
    for path in (tmp_path / "missing", tmp_path):
        old = OldFile(path)
        old.open()
        assert not old.lends
        assert old.chunk(chunk_name(b""), 0, [0]) is None
        old.close()


def test_a_database_in_wal_mode_is_in_use_while_it_is_open(tmp_path: Path) -> None:
    """A connection, idle or not, of this process or another, shows; after it is closed it does not."""
    with closing(make_database(tmp_path / "a")):
        assert is_in_use(tmp_path / "a")
    assert not is_in_use(tmp_path / "a")
    with opened_elsewhere(tmp_path / "a"):
        assert is_in_use(tmp_path / "a")
    assert not is_in_use(tmp_path / "a")


def test_a_rollback_database_is_in_use_while_it_is_locked(tmp_path: Path) -> None:
    """In rollback mode only a transaction shows: SQLite holds no lock in between."""
    with closing(make_database(tmp_path / "a", mode="delete")) as connection:
        assert not is_in_use(tmp_path / "a")
        connection.execute("BEGIN IMMEDIATE")
        assert is_in_use(tmp_path / "a")


def test_looking_changes_nothing(tmp_path: Path) -> None:
    """Asking whether a database is in use leaves no file behind and no byte changed."""
    with closing(make_database(tmp_path / "a")):
        pass
    before = (tmp_path / "a").read_bytes()
    assert not is_in_use(tmp_path / "a")
    assert [found.name for found in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"not a database"])
def test_any_file_may_stand_there(tmp_path: Path, content: bytes) -> None:
    """A file that is no database is in nobody's use."""
    (tmp_path / "a").write_bytes(content)
    assert not is_in_use(tmp_path / "a")
    assert not is_in_use(tmp_path / "missing")


def test_looking_drops_no_lock_of_this_process(tmp_path: Path) -> None:
    """TRAP: raw open and close of the database file drops POSIX locks; reading it for a restore does not.

    Seen to fail with `os.open`/`os.close` in place of SQLite's own VFS: the other process then deleted the WAL. The
    connections are of apsw's SQLite, which is the one whose descriptors the VFS knows.
    """
    connection = make_database(tmp_path / "a")
    old = OldFile(tmp_path / "a")
    old.open()
    assert old.lends
    old.chunk("0" * 64, 4096, [0])
    old.close()
    assert is_in_use(tmp_path / "a")
    with opened_elsewhere(tmp_path / "a"):
        pass
    assert (tmp_path / "a-wal").exists(), "the last one to close deletes the WAL, and that process was not the last"
    connection.close()
