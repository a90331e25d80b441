"""The rollback journal, judged by SQLite."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from replicad.restore.journal import is_ours, journal_header, journal_path, journal_record

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("page_size", [512, 1024, 4096, 32768, 65536])
@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_sqlite_puts_every_page_back(tmp_path: Path, page_size: int, mode: str) -> None:
    """Pages overwritten with noise, and pages added, are as before once SQLite has opened the file."""
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA page_size = {page_size}")
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB)")
        connection.executemany("INSERT INTO t (body) VALUES (?)", [(os.urandom(700),) for _ in range(400)])
        connection.commit()
    before = path.read_bytes()
    pages = len(before) // page_size
    pgnos = [1, 2, *range(3, pages + 1, 3)]
    nonce = 0xFFFF_FFF0
    parts = [journal_header(records=len(pgnos), nonce=nonce, pages=pages, page_size=page_size)]
    parts += [journal_record(pgno, before[(pgno - 1) * page_size : pgno * page_size], nonce=nonce) for pgno in pgnos]
    journal_path(path).write_bytes(b"".join(parts))
    assert is_ours(journal_path(path))
    with path.open("r+b") as file:
        for pgno in pgnos:
            file.seek((pgno - 1) * page_size)
            file.write(os.urandom(page_size))
        file.seek(0, os.SEEK_END)
        file.write(os.urandom(2 * page_size))
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (400,)
    assert path.read_bytes() == before
    assert not journal_path(path).exists()


def test_a_journal_of_sqlite_s_own_is_not_ours(tmp_path: Path) -> None:
    """Only what a restore wrote is taken for that; a missing journal is none."""
    path = tmp_path / "app.db"
    assert not is_ours(journal_path(path))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE t (body BLOB)")
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN")
        connection.execute("INSERT INTO t VALUES (zeroblob(100000))")
        assert journal_path(path).stat().st_size > 0
        assert not is_ours(journal_path(path))
        connection.execute("ROLLBACK")
