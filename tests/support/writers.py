"""Applications that write without mercy, and whose every state tells whether it ever was one.

    with WriterGroup(database, folder) as writers:
        writers.start(engine="sqlite3", seed=1)     # or start them by `writers.command(...)` as somebody's child
        writers.pause(); ...; writers.resume()      # nobody is inside a transaction in between
        writers.stop()

Each transaction that changes rows also adds a row to a ledger: its number (without gaps), how many rows there are now,
and the sum of their hashes. So any state of the database proves itself: `check_ledger` in oracle.py.

Each writer notes the number of its newest acknowledged transaction in a file, as soon as COMMIT has returned. What is
in the page cache survives SIGKILL.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import apsw

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_REPOSITORY = Path(__file__).parents[2]
_ANSWER_SECONDS = 30.0  # until a writer reaches its next pause between two transactions, its busy timeout included
_SUM_MASK = (1 << 62) - 1
_CACHE_PAGES = 20  # what does not fit is in the WAL before the commit

SCHEMA = """
CREATE TABLE t (id INTEGER PRIMARY KEY, k INTEGER NOT NULL, v BLOB NOT NULL);
CREATE INDEX by_k ON t (k);
CREATE TABLE ledger (
    number INTEGER PRIMARY KEY, writer INTEGER NOT NULL, rows INTEGER NOT NULL, total INTEGER NOT NULL
);
INSERT INTO ledger VALUES (0, 0, 0, 0);
"""


def create_database(path: Path, *, page_size: int, auto_vacuum: int, wal: bool = True) -> None:
    """Create the database that the writers expect."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA page_size={page_size}")
    connection.execute(f"PRAGMA auto_vacuum={auto_vacuum}")
    if wal:
        connection.execute("PRAGMA journal_mode=wal")
    connection.executescript(f"BEGIN; {SCHEMA} COMMIT;")
    connection.close()


def row_hash(number: int, k: int, v: bytes) -> int:
    """Return what a row adds to the ledger's total."""
    return zlib.crc32(v, number * 2654435761 & 0xFFFFFFFF) * 1_000_003 + k & _SUM_MASK


@dataclass(slots=True)
class _Totals:
    number: int
    rows: int
    total: int

    def add(self, rows: Sequence[tuple[int, int, bytes]], sign: int = 1) -> None:
        self.rows += sign * len(rows)
        self.total = self.total + sign * sum(row_hash(*row) for row in rows) & _SUM_MASK


class _Busy(Exception):
    """The database is busy: the transaction was rolled back."""


class _Connection:
    """One connection, of the standard library's SQLite or of apsw's."""

    def __init__(self, path: str, engine: str) -> None:
        self._engine = engine
        self._connection: Any
        if engine == "sqlite3":
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=10)
        else:
            self._connection = apsw.Connection(path)
            self._connection.set_busy_timeout(10_000)

    def query(self, sql: str, *values: object) -> list[Any]:
        try:
            return list(self._connection.execute(sql, values).fetchall())
        except (sqlite3.OperationalError, apsw.BusyError, apsw.LockedError) as error:
            if isinstance(error, sqlite3.OperationalError) and "lock" not in str(error):
                raise
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise _Busy from error

    def close(self) -> None:
        self._connection.close()


class _Writer:
    """The program of one writer process."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._random = random.Random(options.seed)
        self._acks = os.open(options.acks, os.O_WRONLY | os.O_CREAT, 0o600)
        self._control = socket.socket(socket.AF_UNIX)
        self._control.connect(options.control)
        self._control.sendall(f"{os.getpid()}\n".encode())
        self._commands = self._control.makefile("rb", buffering=0)  # else it reads ahead what is looked for below
        self._database = self._connect()

    def run(self) -> None:
        """Write until told to stop."""
        while self._goes_on():
            with contextlib.suppress(_Busy):
                self._one()

    def _goes_on(self) -> bool:
        """Obey a command, if there is one: `pause` is answered, and then the next one waited for."""
        self._control.settimeout(0)
        try:
            waiting = self._control.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        finally:
            self._control.settimeout(None)
        while waiting and self._commands.readline() == b"pause\n":
            self._control.sendall(b"paused\n")
            if self._commands.readline() == b"go\n":
                return True
        return False  # told to stop, or nobody is there any more

    def _one(self) -> None:
        dice = self._random.random()
        if dice < 0.62:
            self._transaction(self._insert)
        elif dice < 0.74:
            self._transaction(self._delete)
        elif dice < 0.82:
            self._transaction(self._update)
        elif dice < 0.86:
            self._transaction(self._undo_half)
        elif dice < 0.94:
            mode = self._random.choice(["PASSIVE", "FULL", "RESTART", "TRUNCATE"])
            self._database.query(f"PRAGMA wal_checkpoint({mode})")
        elif dice < 0.97:
            self._database.query(f"PRAGMA incremental_vacuum({self._random.randrange(1, 20)})")
        elif dice < 0.98:
            self._database.query("VACUUM")
        elif dice < 0.99:
            self._transaction(self._table_of_its_own)
        else:
            self._database.close()
            self._database = self._connect()

    def _connect(self) -> _Connection:
        database = _Connection(self._options.database, self._options.engine)
        database.query(f"PRAGMA wal_autocheckpoint={self._random.choice([1, 10, 100, 1000])}")
        database.query("PRAGMA synchronous=OFF")
        database.query(f"PRAGMA cache_size={_CACHE_PAGES}")
        return database

    def _transaction(self, change: Any) -> None:  # noqa: ANN401 - a method of this class
        database = self._database
        database.query("BEGIN IMMEDIATE")
        number, rows, total = database.query("SELECT number, rows, total FROM ledger ORDER BY number DESC LIMIT 1")[0]
        totals = _Totals(number + 1, rows, total)
        change(totals)
        database.query(
            "INSERT INTO ledger VALUES (?, ?, ?, ?)", totals.number, self._options.seed, totals.rows, totals.total
        )
        if self._random.random() < 0.1:
            database.query("ROLLBACK")
            return
        database.query("COMMIT")
        os.pwrite(self._acks, struct.pack("<Q", totals.number), 0)

    def _insert(self, totals: _Totals) -> None:
        if totals.rows * 1000 > self._options.size_bytes:
            self._delete(totals)
        count = self._random.choice([1, 1, 1, 1, 5, 5, 200])
        for _ in range(count):
            k, v = self._random.randrange(10**6), self._random.randbytes(self._random.randrange(2000))
            self._database.query("INSERT INTO t (k, v) VALUES (?, ?)", k, v)
            totals.add([(self._database.query("SELECT last_insert_rowid()")[0][0], k, v)])
        if self._random.random() < 0.05:  # larger than a segment may be in memory: it is streamed
            k, v = 0, self._random.randbytes(self._options.blob_bytes)
            self._database.query("INSERT INTO t (k, v) VALUES (?, ?)", k, v)
            totals.add([(self._database.query("SELECT last_insert_rowid()")[0][0], k, v)])

    def _delete(self, totals: _Totals) -> None:
        share = self._random.choice([20, 20, 2])
        gone = self._database.query("SELECT id, k, v FROM t WHERE id % ? = 0 OR length(v) > 100000", share)
        self._database.query("DELETE FROM t WHERE id % ? = 0 OR length(v) > 100000", share)
        totals.add(gone, -1)

    def _update(self, totals: _Totals) -> None:
        rest = self._random.randrange(97)
        totals.add(self._database.query("SELECT id, k, v FROM t WHERE id % 97 = ?", rest), -1)
        self._database.query("UPDATE t SET k = k + 1 WHERE id % 97 = ?", rest)
        totals.add(self._database.query("SELECT id, k, v FROM t WHERE id % 97 = ?", rest))

    def _undo_half(self, totals: _Totals) -> None:
        """Insert, and insert more that is undone.

        What is undone must not have left the cache where SQLite is old: 3.40.1 then commits frames without salts and
        checksums (the newest does not). While a process has the database open nothing is lost, but when all have
        crashed, recovery drops such a commit and all behind it, with or without replicad: nothing to be judged here.
        """
        self._insert(totals)
        self._database.query("SAVEPOINT half")
        if self._options.engine == "sqlite3":
            self._database.query("PRAGMA cache_size=100000")
        self._insert(_Totals(totals.number, 0, 0))
        self._database.query("ROLLBACK TO half")
        self._database.query("RELEASE half")
        self._database.query(f"PRAGMA cache_size={_CACHE_PAGES}")

    def _table_of_its_own(self, totals: _Totals) -> None:
        name = f"of_{totals.number}"
        self._database.query(f"CREATE TABLE {name} (v)")
        self._database.query(f"INSERT INTO {name} VALUES (zeroblob(100000))")
        for (other,) in self._database.query("SELECT name FROM sqlite_schema WHERE name LIKE 'of\\_%' ESCAPE '\\'"):
            if other != name:
                self._database.query(f"DROP TABLE {other}")


class WriterGroup:
    """The test's end of all writers of one database."""

    def __init__(self, database: Path, folder: Path, *, size_bytes: int = 1_000_000, blob_bytes: int = 400_000) -> None:
        """`folder` is for the control socket and the notes of what was acknowledged."""
        self._database = database
        self._folder = folder
        self._size = ["--size-bytes", str(size_bytes), "--blob-bytes", str(blob_bytes)]
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / "writers.sock"))
        self._listener.listen(64)
        self._listener.settimeout(_ANSWER_SECONDS)
        self._started: list[subprocess.Popen[bytes]] = []
        self._connected: list[tuple[int, socket.socket]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._listener.close()

    def command(self, *, engine: str, seed: int) -> list[str]:
        """Return the command line of one writer, to be run in the repository's root."""
        return [
            sys.executable,
            "-m",
            "tests.support.writers",
            *("--database", str(self._database), "--engine", engine, "--seed", str(seed)),
            *("--control", str(self._folder / "writers.sock"), "--acks", str(self._folder / f"acks-{seed}")),
            *self._size,
        ]

    def start(self, *, engine: str, seed: int) -> None:
        """Start a writer as a child of the test, and wait until it writes."""
        self._started.append(subprocess.Popen(self.command(engine=engine, seed=seed), cwd=_REPOSITORY))
        self.accept()

    def accept(self) -> None:
        """Wait for one writer that somebody else has started."""
        connection, _ = self._listener.accept()
        connection.settimeout(_ANSWER_SECONDS)
        self._connected.append((int(_line(connection)), connection))

    @property
    def pids(self) -> list[int]:
        """The process ids of those that write."""
        return [pid for pid, _ in self._connected]

    def acknowledged(self) -> int:
        """Return the number of the newest transaction that any writer saw committed."""
        noted = [file.read_bytes() for file in self._folder.glob("acks-*")]
        return max((struct.unpack("<Q", number)[0] for number in noted if number), default=0)

    def forget_acknowledged(self) -> None:
        """Begin to count anew: the disk that the acknowledged transactions were on is gone."""
        for file in self._folder.glob("acks-*"):
            file.unlink()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Keep every writer between two transactions while the block runs."""
        self._tell("pause")
        for pid, connection in self._connected:
            answer = _line(connection)
            assert answer == "paused", f"writer {pid} said {answer!r}"
        try:
            yield
        finally:
            self._tell("go")

    def stop(self) -> None:
        """End every writer between two transactions, and wait for it."""
        self._tell("stop")
        for pid, connection in self._connected:
            assert not connection.recv(1), f"writer {pid} said something at its end"
        self._reap(expected=0)

    def kill(self) -> None:
        """End every writer wherever it is."""
        for pid, _ in self._connected:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for writer in self._started:
            writer.kill()
        for _, connection in self._connected:
            with contextlib.suppress(ConnectionError):
                connection.recv(1)  # it ends when the process does
        self._reap(expected=None)

    def _tell(self, word: str) -> None:
        for _, connection in self._connected:
            connection.sendall(f"{word}\n".encode())

    def _reap(self, *, expected: int | None) -> None:
        for _, connection in self._connected:
            connection.close()
        self._connected.clear()
        statuses = [writer.wait(_ANSWER_SECONDS) for writer in self._started]
        self._started.clear()
        assert expected is None or all(status == expected for status in statuses), statuses


def _line(connection: socket.socket) -> str:
    line = b""
    while not line.endswith(b"\n"):
        got = connection.recv(64)
        if not got:
            break
        line += got
    return line.decode().strip()


def main() -> None:
    """Be one writer."""
    parser = argparse.ArgumentParser()
    for name in ("--database", "--engine", "--control", "--acks"):
        parser.add_argument(name, required=True)
    for name in ("--seed", "--size-bytes", "--blob-bytes"):
        parser.add_argument(name, required=True, type=int)
    _Writer(parser.parse_args()).run()


if __name__ == "__main__":
    main()
