"""A database in WAL mode, and an application beside it: another process, with the standard library's SQLite."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Self

import apsw
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_APPLICATION = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=float(sys.argv[2]))
for line in sys.stdin:
    try:
        answer = repr(connection.execute(line).fetchall())
    except sqlite3.Error as error:
        answer = f"{type(error).__name__}: {error}"
    print(answer, flush=True)
"""


class Application:
    """A connection of another process; `run` gives one statement to it and returns what it answers, as text."""

    def __init__(self, path: Path, *, timeout_seconds: float = 0.0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-c", _APPLICATION, str(path), str(timeout_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, statement: str) -> str:
        """Run a statement to its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{statement}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        """Close the connection in order, by the end of the process."""
        self._process.communicate(timeout=10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A closed database in WAL mode, with a table `t (n INTEGER PRIMARY KEY, v)` of three rows and no WAL."""
    path = tmp_path / "app.db"
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", "wal")
    connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    connection.close()
    return path


@pytest.fixture
def application(database: Path) -> Iterator[Application]:
    """Another process that is connected to the database, and never waits for a lock."""
    with Application(database) as found:
        assert found.run("SELECT count(*) FROM t") == "[(3,)]"
        yield found
