from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from replicad.cli.checks.database import check_database
from replicad.config import load

if TYPE_CHECKING:
    from pathlib import Path

    from replicad.cli.checks.check import Check


def _checks(path: Path, **flags: str) -> dict[str, Check]:
    found = load(flags={"database": str(path), "replica": "file:///x", **flags}, environ={}).settings
    return {check.name: check for check in check_database(found, found.databases[0])}


def _database(path: Path, *pragmas: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("CREATE TABLE t (n)")


def test_a_database_in_wal_mode(tmp_path: Path) -> None:
    """File, page size and mode are found without touching anything beside the file."""
    _database(tmp_path / "app.db", "page_size=65536", "journal_mode=wal")
    before = sorted(tmp_path.iterdir())
    checks = _checks(tmp_path / "app.db")
    assert {check.verdict for check in checks.values()} == {"ok"}
    assert "pages of 65536 bytes" in checks["database"].found
    assert checks["journal mode"].found == "WAL"
    assert sorted(tmp_path.iterdir()) == before


def test_a_database_without_wal(tmp_path: Path) -> None:
    """Another journal mode is fine with wal: convert, and a warning with wal: keep."""
    _database(tmp_path / "app.db")
    assert _checks(tmp_path / "app.db")["journal mode"].verdict == "ok"
    assert _checks(tmp_path / "app.db", wal="keep")["journal mode"].verdict == "warn"


def test_a_database_that_is_not_there(tmp_path: Path) -> None:
    """A missing or an empty file is no problem: it is waited for."""
    assert _checks(tmp_path / "app.db")["database"].verdict == "ok"
    (tmp_path / "app.db").touch()
    assert _checks(tmp_path / "app.db")["database"].found.endswith("is empty")


@pytest.mark.parametrize("content", [b"not a database at all" * 10, b"SQLite format 3\0", os.urandom(4096)])
def test_what_is_no_database(tmp_path: Path, content: bytes) -> None:
    """An encrypted file, a text, or half a header is a failure."""
    (tmp_path / "app.db").write_bytes(content)
    check = _checks(tmp_path / "app.db")["database"]
    assert check.verdict == "fail"
    assert "SQLCipher" in check.advice


def test_a_large_wal_and_a_hot_journal(tmp_path: Path) -> None:
    """A WAL beyond its limit and a rollback journal with something in it are warnings."""
    _database(tmp_path / "app.db", "journal_mode=wal")
    with (tmp_path / "app.db-wal").open("wb") as wal:
        wal.truncate(33 << 20)
    (tmp_path / "app.db-journal").write_bytes(b"x")
    checks = _checks(tmp_path / "app.db", max_wal_bytes="32MiB")
    assert checks["WAL"].verdict == "warn"
    assert "33.0 MiB, above max_wal_bytes (32.0 MiB)" in checks["WAL"].found
    assert checks["rollback journal"].verdict == "warn"
