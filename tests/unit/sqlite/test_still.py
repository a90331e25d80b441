from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import apsw
import pytest

from replicad.errors import DatabaseBusy, DatabaseUnusable, FileUnusable
from replicad.sqlite import still
from replicad.sqlite.image import Image
from replicad.sqlite.still import Still

if TYPE_CHECKING:
    from collections.abc import Callable


def make(path: Path, *, mode: str = "wal", page_size: int = 4096, rows: int = 50) -> apsw.Connection:
    """Make a database with a table, and return the connection of its application."""
    connection = apsw.Connection(str(path))
    connection.pragma("page_size", page_size)
    connection.pragma("journal_mode", mode)
    connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, v)")
    for number in range(rows):
        connection.execute("INSERT INTO t VALUES (?, randomblob(1000))", (number,))
    return connection


def read(path: Path) -> bytes:
    """Return the state that is held."""
    found = Still(path)
    try:
        found.check(threading.Event(), full=True)
        return bytes(Image.under_pin(found, found.index, pages=found.pages).read(1, found.pages))
    finally:
        found.close()


def beside(path: Path) -> dict[str, bytes]:
    """Return the database and what stands beside it, but for the index of the WAL."""
    return {one.name: one.read_bytes() for one in path.parent.iterdir() if not one.name.endswith("-shm")}


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
@pytest.mark.parametrize("mode", ["wal", "delete", "truncate", "persist"])
def test_a_database_that_nobody_uses(tmp_path: Path, mode: str, page_size: int) -> None:
    """It is read as SQLite reads it, in every journal mode, and not a byte of it or beside it is changed."""
    path = tmp_path / "app.db"
    connection = make(path, mode=mode, page_size=page_size)
    expected = connection.serialize("main")
    connection.close()
    before = beside(path)
    assert read(path) == expected
    assert beside(path) == before


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_an_application_that_writes_on(tmp_path: Path, mode: str) -> None:
    """What is read is the state of the moment it was opened, whatever an application commits meanwhile."""
    path = tmp_path / "app.db"
    connection = make(path, mode=mode)
    expected = connection.serialize("main")
    found = Still(path)
    try:
        image = Image.under_pin(found, found.index, pages=found.pages)
        first = bytes(image.read(1, 3))
        if mode == "wal":
            connection.execute("UPDATE t SET v = randomblob(1000)")
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        else:
            connection.set_busy_timeout(0)
            with pytest.raises(apsw.BusyError):  # only its own commit waits, no longer than the file is read
                connection.execute("UPDATE t SET v = randomblob(1000)")
        assert first + bytes(image.read(4, found.pages - 3)) == expected
    finally:
        found.close()
    connection.execute("UPDATE t SET v = 1")
    connection.close()


def test_a_wal_whose_application_was_killed(tmp_path: Path) -> None:
    """What was committed and is in the WAL alone is part of the state; the WAL stays as it was."""
    connection = make(tmp_path / "live.db")
    expected = connection.serialize("main")
    folder = tmp_path / "copy"
    folder.mkdir()
    for end in ("", "-wal"):
        shutil.copy(f"{tmp_path}/live.db{end}", f"{folder}/app.db{end}")
    connection.close()
    before = beside(folder / "app.db")
    assert read(folder / "app.db") == expected
    assert beside(folder / "app.db") == before


def test_a_transaction_that_died_half_way(tmp_path: Path) -> None:
    """A hot journal is not rolled back, which would be a write: it is said what to do, and nothing is touched."""
    connection = make(tmp_path / "live.db", mode="delete")
    connection.pragma("cache_size", 5)
    connection.execute("BEGIN")
    connection.execute("UPDATE t SET v = randomblob(5000)")
    folder = tmp_path / "copy"
    folder.mkdir()
    for end in ("", "-journal"):
        shutil.copy(f"{tmp_path}/live.db{end}", f"{folder}/app.db{end}")
    connection.execute("ROLLBACK")
    connection.close()
    before = beside(folder / "app.db")
    with pytest.raises(DatabaseUnusable, match="died half way: its -journal"):
        Still(folder / "app.db")
    assert beside(folder / "app.db") == before


def _cut(path: Path, n_bytes: int) -> None:
    os.truncate(path, path.stat().st_size - n_bytes)


@pytest.mark.parametrize(
    ("spoil", "error", "found"),
    [
        (lambda path: path.write_bytes(b""), DatabaseUnusable, "an empty file"),
        (lambda path: path.write_bytes(os.urandom(8192)), DatabaseUnusable, "encrypted database looks like that"),
        (lambda path: path.write_text("no database\n" * 100), DatabaseUnusable, "other contents"),
        (lambda path: _cut(path, 20_000), DatabaseUnusable, "malformed"),
        (lambda path: _cut(path, 100), DatabaseUnusable, "the file is truncated"),
        (lambda path: os.truncate(path, 60), DatabaseUnusable, "malformed"),
        (lambda path: path.unlink(), FileUnusable, "no such file"),
        (lambda path: (path.unlink(), path.mkdir()), FileUnusable, "no regular file"),
    ],
    ids=["empty", "random", "text", "half", "last-page", "header", "gone", "folder"],
)
def test_what_is_no_database(
    tmp_path: Path, spoil: Callable[[Path], object], error: type[Exception], found: str
) -> None:
    """A file that is none, or only a part of one, is refused with a reason.

    TRAP: SQLite opens a file that lacks the end of its last page, and reads zeros there. Without `_refuse_truncated`
    the case "last-page" was read without an error.
    """
    path = tmp_path / "app.db"
    make(path, mode="delete").close()
    spoil(path)
    with pytest.raises(error, match=found):
        Still(path)


def test_damage_inside(tmp_path: Path) -> None:
    """A check finds what SQLite finds."""
    path = tmp_path / "app.db"
    make(path).close()
    with path.open("r+b") as file:
        file.seek(2 * 4096)
        file.write(os.urandom(4096))
    with pytest.raises(DatabaseUnusable, match="PRAGMA integrity_check"):
        read(path)


def test_a_folder_in_which_nothing_can_be_made(tmp_path: Path) -> None:
    """A WAL database without a WAL, where no -shm can be made, is read from the file alone."""
    path = tmp_path / "app.db"
    connection = make(path)
    expected = connection.serialize("main")
    connection.close()
    Path(f"{path}-shm").mkdir()  # SQLite cannot open that, whoever runs this
    found = Still(path)
    try:
        assert not found.is_held
        assert bytes(Image.under_pin(found, found.index, pages=found.pages).read(1, found.pages)) == expected
    finally:
        found.close()


def test_a_folder_in_which_nothing_can_be_made_with_a_wal(tmp_path: Path) -> None:
    """With a WAL the file alone is not the state: that is an error, not an older state."""
    connection = make(tmp_path / "live.db")
    path = tmp_path / "app.db"
    for end in ("", "-wal"):
        shutil.copy(f"{tmp_path}/live.db{end}", f"{path}{end}")
    connection.close()
    Path(f"{path}-shm").mkdir()
    with pytest.raises(FileUnusable, match="read with its -wal"):
        Still(path)


def test_an_application_that_keeps_the_file_to_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that does not go away is said to be one."""
    monkeypatch.setattr(still, "_BUSY_TIMEOUT_MS", 50)
    path = tmp_path / "app.db"
    script = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('CREATE TABLE t (n)'); c.execute('PRAGMA locking_mode=exclusive');"
        "c.execute('BEGIN EXCLUSIVE'); print('ready', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"ready\n"
        with pytest.raises(DatabaseBusy, match="a lock that did not go away"):
            Still(path)
        other.communicate()
