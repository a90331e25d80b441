"""Where a scenario runs: a store, wires to it, databases, and tools attached to them."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import sqlite3
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.peers.application import row
from bench.peers.measure import RESTORE_SECONDS, Finished, run, stop
from bench.peers.peer import Site
from bench.peers.wire import Wire
from tests.support import versitygw_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path
    from random import Random

    from bench.peers.peer import Peer
    from bench.peers.wire import Request
    from bench.peers.work import Commits

MIB = 1 << 20
_START_SECONDS = 1_200.0
_FILLER_ROW_BYTES = 3_900
"""A row of the filler fills a page: an update of a random row changes a random page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """A tool that replicates a database."""

    peer: Peer
    site: Site
    wire: Wire
    process: subprocess.Popen[bytes]
    started: float

    @property
    def pid(self) -> int:
        """Of the tool; its shell, where it is one."""
        return self.process.pid

    @property
    def log(self) -> Path:
        """What it says."""
        return self.site.folder / "tool.log"

    def insist(self) -> None:
        """See that it still runs, and has not been at its start for too long.

        Raises:
            RuntimeError: It does not, or has.
        """
        if self.process.poll() is not None or time.monotonic() - self.started > _START_SECONDS:
            raise RuntimeError(f"{self.peer.name} does not run: {self.log.read_text()[-1000:]}")

    def caught_up(self, commits: Commits) -> float:
        """Wait until it has sent these; return when the last object of them was stored.

        That it is quiet does not say it: one was, for long enough, before it sent the first byte of 1 GiB.
        """
        self.wire.until_stored(self.peer.log_objects, since=commits.began[-1], count=1)
        return self.wire.until_quiet(self.peer.log_objects, quiet_seconds=self.peer.quiet_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One scenario's folder and store."""

    folder: Path
    store: versitygw_server.VersitygwServer
    quick: bool

    @property
    def upstream(self) -> int:
        """The store's port."""
        return int(self.store.endpoint.rpartition(":")[2])

    def new_folder(self) -> Path:
        """Return a folder of its own."""
        folder = self.folder / secrets.token_hex(4)
        folder.mkdir()
        return folder

    @contextlib.contextmanager
    def wire(self, *, delay_ms: float = 0.0, bytes_per_second: float = 0.0) -> Iterator[Wire]:
        """Open a wire to the store."""
        with Wire(self.new_folder() / "wire", self.upstream, delay_ms, bytes_per_second) as wire:
            yield wire

    def site(self, wire: Wire, database: Path, bucket: str | None = None) -> Site:
        """Return a site with a bucket of its own, or on one that exists."""
        if bucket is None:
            bucket = self.store.new_bucket_url().removeprefix("s3://").partition("?")[0]
        return Site(
            folder=self.new_folder(),
            database=database,
            bucket=bucket,
            endpoint=wire.endpoint,
            access_key_id=versitygw_server.ACCESS_KEY_ID,
            secret_access_key=versitygw_server.SECRET_ACCESS_KEY,
        )

    @contextlib.contextmanager
    def attached(self, peer: Peer, database: Path, *, delay_ms: float = 0.0) -> Iterator[Attached]:
        """Start a tool and wait until the database as it is has been stored."""
        with self.wire(delay_ms=delay_ms) as wire:
            site = self.site(wire, database)
            with self.running(peer, site, wire) as attached:
                while not wire.stored(peer.image_objects):
                    attached.insist()
                    time.sleep(0.02)
                wire.until_quiet(peer.image_objects, quiet_seconds=1.5)
                yield attached

    @contextlib.contextmanager
    def running(self, peer: Peer, site: Site, wire: Wire) -> Iterator[Attached]:
        """Start a tool; end it as a platform does, with SIGTERM and some patience."""
        command = peer.replicate(site)
        started = time.monotonic()
        with (site.folder / "tool.log").open("ab") as log:
            process = subprocess.Popen(
                command.argv,
                env={**site.environment(), **command.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield Attached(peer=peer, site=site, wire=wire, process=process, started=started)
            if process.poll() is not None:
                raise RuntimeError(f"{peer.name} ended by itself: {(site.folder / 'tool.log').read_text()[-1000:]}")
        finally:
            if process.poll() is None:
                stop(process, signal.SIGTERM)

    def restore(
        self, peer: Peer, site: Site, output: Path, at: datetime | None = None, *, seconds: float = RESTORE_SECONDS
    ) -> Finished:
        """Restore within so many seconds."""
        command = peer.restore(site, output, at)
        environment = {**site.environment(), **command.environment}
        return run(command.argv, environment, log=site.folder / "restore.log", seconds=seconds)

    def bucket_until(self, bucket: str, requests: list[Request], moment: float) -> str:
        """Return a bucket with the objects that were durable at a moment: hard links, the server's own files."""
        past = f"{bucket}-{secrets.token_hex(4)}"
        (self.store.root / past).mkdir()
        for request in requests:
            if request.ended is None or request.ended > moment or request.status != 200:
                continue
            held, _, key = request.key.partition("/")
            file = self.store.root / held / key
            if held == bucket and key and request.verb in ("PUT", "POST") and file.is_file():
                link = self.store.root / past / key
                link.parent.mkdir(parents=True, exist_ok=True)
                if not link.exists():
                    os.link(file, link)
        return past


def fill(path: Path, random_: Random, size_bytes: int) -> Path:
    """Make a database in WAL mode of about this size: rows of text in `filler`, an empty `load`."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = OFF")
    database.execute("CREATE TABLE load (id INTEGER PRIMARY KEY, body TEXT)")
    database.execute("CREATE TABLE filler (id INTEGER PRIMARY KEY, body TEXT)")
    for _ in range(0, size_bytes, 4_000 * 4_096):
        bodies = ((row(random_, _FILLER_ROW_BYTES),) for _ in range(min(4_000, size_bytes // 4_096)))
        database.execute("BEGIN")
        database.executemany("INSERT INTO filler (body) VALUES (?)", bodies)
        database.execute("COMMIT")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    database.close()
    return path


def filler_rows(path: Path) -> int:
    """Return how many rows of filler there are."""
    return int(ask(path, "SELECT coalesce(max(id), 0) FROM filler"))


def ask(path: Path, query: str) -> int:
    """Return one number."""
    database = sqlite3.connect(path, timeout=60)
    try:
        return int(database.execute(query).fetchone()[0])
    finally:
        database.close()


def copy(source: Path, target: Path) -> Path:
    """Copy a database that nobody has open."""
    shutil.copyfile(source, target)
    return target
