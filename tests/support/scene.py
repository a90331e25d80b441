"""One database, one bucket, one daemon: what the end-to-end tests are told in.

    scene.create("CREATE TABLE t (n)")
    scene.daemon.start()
    scene.write("INSERT INTO t VALUES (1)")
    scene.daemon.sync()
    before = scene.keys()
    scene.daemon.stop(); scene.lose_disk(); scene.daemon.start()
    assert scene.rows("SELECT n FROM t") == [(1,)]
    scene.check_newest()                      # the bucket alone says what the database says

The test is the application; SQLite here is that of the standard library, as most applications have it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.support.daemon import BRISK, DaemonProcess
from tests.support.oracle import StoredHistory, image_of, read_folder
from tests.support.waiting import wait_until
from tests.support.warm import run_warm

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.support.moto_server import MotoServer

_REPOSITORY = Path(__file__).parents[2]
_COMMAND_SECONDS = 60.0

PAGE_KINDS = ("segment", "snapshot", "chunk")
"""What holds pages of the database; a claim, a start and an end do not."""


class Scene:
    """Use as a context manager: it leaves no process behind."""

    def __init__(
        self,
        folder: Path,
        *,
        server: MotoServer | None = None,
        endpoint: str | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Set the scene.

        Args:
            folder: for everything.
            server: has the bucket; without it, it is a folder beside the disk.
            endpoint: of a proxy in front of the server, for the daemon alone.
            settings: as for DaemonProcess.
        """
        self._server = server
        self.folder = folder
        self.disk = folder / "disk"
        self.disk.mkdir()
        self.database = self.disk / "app.db"
        self.bucket = folder / "bucket"
        self.bucket.mkdir()
        self.replica = server.new_bucket_url(endpoint=endpoint) if server else f"file://{self.bucket}"
        self.daemon = DaemonProcess(
            self.database, self.replica, folder, BRISK | {"sync_interval": "20ms", **(settings or {})}
        )
        self._connection: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self.kill()
        if self.daemon.log.exists():
            print(self.daemon.log.read_text()[-20_000:])  # noqa: T201 - pytest shows it when the test fails

    # --- the application's side --------------------------------------------------------------------

    @property
    def connection(self) -> sqlite3.Connection:
        """The application's connection, opened when it is first asked for: autocommit, WAL where it is set."""
        if self._connection is None:
            self._connection = connect(self.database)
        return self._connection

    def close(self) -> None:
        """Close the application's connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def create(self, *statements: str, wal: bool = True, **pragmas: object) -> None:
        """Make the database, with a table `t (n INTEGER PRIMARY KEY, v)` and what the statements add; then close it."""
        with contextlib.closing(connect(self.database)) as connection:
            for name, setting in pragmas.items():
                connection.execute(f"PRAGMA {name}={setting}")
            connection.execute(f"PRAGMA journal_mode={'wal' if wal else 'delete'}")
            for statement in ("CREATE TABLE t (n INTEGER PRIMARY KEY, v)", *statements):
                connection.execute(statement)

    def write(self, *statements: str) -> None:
        """Commit each statement by itself, on the application's connection."""
        for statement in statements:
            self.connection.execute(statement)

    def insert(self, *numbers: int, size_bytes: int = 100) -> None:
        """Commit a row for each number by itself."""
        for number in numbers:
            self.connection.execute("INSERT INTO t VALUES (?, randomblob(?))", (number, size_bytes))

    def rows(self, query: str = "SELECT n FROM t ORDER BY n") -> list[Any]:
        """Return what the application finds; a query of one column gives plain values."""
        found = self.connection.execute(query).fetchall()
        return [row[0] for row in found] if found and len(found[0]) == 1 else found

    def kill(self) -> None:
        """End the daemon and the application that it started, wherever they are."""
        apps = [int(str(line["pid"])) for line in self.daemon.found("app_started")]
        self.daemon.kill()
        for pid in apps:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
            wait_until(partial(has_ended, pid))

    def lose_disk(self) -> None:
        """Delete the disk and all that is on it; everybody must have been ended."""
        self.close()
        shutil.rmtree(self.disk)
        self.disk.mkdir()

    # --- the bucket's side -------------------------------------------------------------------------

    def objects(self) -> dict[str, bytes]:
        """Return all that is stored, by key, whatever kind of store it is."""
        if self._server is None:
            return read_folder(self.bucket / self.database.name)
        return self._server.objects(self._bucket_name, f"{self.database.name}/")

    def replace_object(self, key: str, body: bytes | None) -> None:
        """Put other bytes under a key behind the daemon's back, or nothing (None)."""
        if self._server is None:
            path = self.bucket / self.database.name / key
            path.unlink() if body is None else path.write_bytes(body)
        elif body is None:
            self._server.delete_object(self._bucket_name, f"{self.database.name}/{key}")
        else:
            self._server.put_object(self._bucket_name, f"{self.database.name}/{key}", body)

    def open_uploads(self) -> int:
        """Return how many multipart uploads were begun on the server and not ended."""
        assert self._server is not None
        return self._server.open_uploads(self._bucket_name)

    @property
    def _bucket_name(self) -> str:
        return self.replica.removeprefix("s3://").partition("?")[0]

    def keys(self, *kinds: str) -> set[str]:
        """Return the keys of all that is stored, or of some kinds (see `kind`)."""
        return {key for key in self.objects() if not kinds or kind(key) in kinds}

    def history(self) -> StoredHistory:
        """Return what is stored now, as it fits together."""
        return StoredHistory(self.objects())

    def check_newest(self) -> int:
        """Hold the newest stored state against the database, page for page; return its transaction."""
        txid, state = self.history().newest()
        image = image_of(self.database)
        assert len(state.image) == len(image)
        size = state.page_size
        differing = [
            at // size + 1 for at in range(0, len(image), size) if state.image[at : at + size] != image[at : at + size]
        ]
        assert not differing, f"pages differ: {differing}"
        return txid

    def states(self, query: str = "SELECT n FROM t ORDER BY n") -> dict[int, list[Any]]:
        """Return what a query finds in each state that can be restored, by transaction; None: it cannot be asked."""
        return {txid: ask(bytes(state.image), query) for txid, state in self.history().states()}

    def restore(self, *arguments: str, into: str = "restored.db") -> Path:
        """Restore with the program into another file; return its path."""
        path = self.folder / into
        ended = self.program("restore", "--output", str(path), *arguments)
        assert ended.returncode == 0, ended.stderr
        return path

    def program(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of replicad's with the daemon's settings, to its end."""
        if arguments[0] != "run":
            return run_warm(arguments, self.daemon.environment)
        return subprocess.run(
            [sys.executable, "-m", "replicad", *arguments],
            cwd=_REPOSITORY,
            env=self.daemon.environment,
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )


def kind(key: str) -> str:
    """Return what an object is: claim, note (of a handover), start, end, segment, snapshot or chunk."""
    names = {"claims": "claim", "handover": "note", "log": "segment", "snapshots": "snapshot", "chunks": "chunk"}
    folder, _, name = key.rpartition("/")
    return names.get(folder.rpartition("/")[2]) or name.removesuffix(".json")


def connect(path: Path) -> sqlite3.Connection:
    """Open a database as an application does, autocommit, waiting up to 10 s for a lock."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=10)
    connection.execute("PRAGMA synchronous=OFF")
    return connection


def ask(image: bytes, query: str) -> Any:  # noqa: ANN401 - rows, or plain values for one column
    """Return what a query finds in an image of a database; None where there is nothing to be asked."""
    rollback = bytearray(image)
    rollback[18:20] = b"\1\1"  # SQLite does not open an image in memory that asks for a WAL
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(bytes(rollback))
        try:
            found = connection.execute(query).fetchall()
        except sqlite3.OperationalError:
            return None
        return [row[0] for row in found] if found and len(found[0]) == 1 else found


def rows_of(path: Path, query: str = "SELECT n FROM t ORDER BY n") -> Any:  # noqa: ANN401 - as `ask`
    """Return what a query finds in a file that nobody uses."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as connection:
        found = connection.execute(query).fetchall()
        return [row[0] for row in found] if found and len(found[0]) == 1 else found


@contextlib.contextmanager
def measured(longest: list[float]) -> Iterator[None]:
    """Note how long the block took."""
    began = time.perf_counter()
    yield
    longest.append(time.perf_counter() - began)


def has_ended(pid: int) -> bool:
    """Return whether a process runs no more, though nobody may have asked for its status yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
