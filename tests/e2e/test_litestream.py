"""Moving from Litestream: replicas that the real one made, of databases that are written to."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from replicad.position import lock_page
from replicad.store.url import S3Location, parse_url
from tests.support import versitygw_server
from tests.support.litestream import Litestream, why_no_litestream
from tests.support.moto_server import CREDENTIALS, REGION
from tests.support.versitygw_server import running_versitygw, why_no_versitygw
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.support.moto_server import MotoServer

BRISK = {
    "snapshot": {"interval": "1s", "retention": "1h"},
    "levels": [{"interval": "500ms"}, {"interval": "1500ms"}],
}
"""What takes Litestream hours happens within a test: files of all levels, and more behind the newest snapshot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where Litestream writes to."""

    url: str  # as replicad is told
    replica: Mapping[str, object]  # as Litestream is told
    credentials: Mapping[str, str]


def in_folder(folder: Path, **settings: str) -> Place:
    """Return a folder."""
    path = folder / "litestream"
    replica = {"type": "file", "path": str(path), **_spelled(settings)}
    return Place(url=f"file://{path}", replica=replica, credentials=CREDENTIALS)


def in_bucket(url: str, credentials: Mapping[str, str] = CREDENTIALS, **settings: str) -> Place:
    """Return a bucket with a prefix."""
    location = parse_url(url)
    assert isinstance(location, S3Location)
    replica = {
        "type": "s3",
        "bucket": location.bucket,
        "path": location.prefix,
        "endpoint": location.endpoint,
        "region": REGION,
        "force-path-style": True,
        "access-key-id": credentials["AWS_ACCESS_KEY_ID"],
        "secret-access-key": credentials["AWS_SECRET_ACCESS_KEY"],
        **_spelled(settings),
    }
    return Place(url=url, replica=replica, credentials=credentials)


def _spelled(settings: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): text for name, text in settings.items()}


@pytest.fixture
def versitygw(tmp_path: Path) -> Iterator[str]:
    """The URL of a bucket in a server that is no AWS."""
    if (missing := why_no_versitygw()) is not None:
        pytest.skip(missing)
    (tmp_path / "gateway").mkdir()
    with running_versitygw(tmp_path / "gateway") as server:
        yield server.new_bucket_url()


def need(line: str) -> None:
    """Skip the test where there is no such Litestream."""
    if (missing := why_no_litestream(line)) is not None:
        pytest.skip(missing)


@contextmanager
def application(database: Path, page_size: int) -> Iterator[sqlite3.Connection]:
    """Make a database as an application does, and keep its connection."""
    with closing(sqlite3.connect(database, isolation_level=None, check_same_thread=False)) as connection:
        connection.execute(f"PRAGMA page_size={page_size}")
        connection.execute("PRAGMA journal_mode=wal")
        connection.execute("PRAGMA busy_timeout=10000")
        connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, v)")
        yield connection


def write(connection: sqlite3.Connection, seconds: float) -> None:
    """Insert, update, delete, VACUUM, and grow again, for about so long."""
    until = time.monotonic() + seconds
    number = 0
    while time.monotonic() < until:
        for _ in range(20):
            number += 1
            connection.execute("INSERT INTO t(v) VALUES (randomblob(?))", (number * 37 % 3000,))
        connection.execute("UPDATE t SET v = randomblob(200) WHERE n % 7 = ?", (number % 7,))
        if number % 200 == 0:
            connection.execute("DELETE FROM t WHERE n % 3 = 0")
        if number % 600 == 0:
            connection.execute("VACUUM")
        time.sleep(0.02)  # an application that does nothing else is none
    connection.execute("INSERT INTO t(v) VALUES ('the last one')")


def replicad(place: Place, *arguments: str) -> dict[str, Any]:
    """Run a command that succeeds; return its JSON."""
    ended = subprocess.run(
        [sys.executable, "-m", "replicad", *arguments, "--json"],
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
        env={**os.environ, **place.credentials},
        stdin=subprocess.DEVNULL,
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert isinstance(found, dict)
    return found


def _ours(folder: Path) -> tuple[str, ...]:
    return ("--replica", f"file://{folder}/ours", "--name", "app.db")


def moved(place: Place, folder: Path) -> tuple[dict[str, Any], bytes]:
    """Import a replica, restore it, and return what was said and the image."""
    said = replicad(place, "push", "--from-litestream", place.url, *_ours(folder))
    target = folder / "restored.db"
    replicad(place, "restore", *_ours(folder), "--output", str(target))
    return said, target.read_bytes()


def same_pages(one: bytes, other: bytes, page_size: int) -> bool:
    """Return whether two images are the same, the lock page aside."""
    begin = (lock_page(page_size) - 1) * page_size
    return one[:begin] == other[:begin] and one[begin + page_size :] == other[begin + page_size :]


def check(line: str, place: Place, folder: Path, *, page_size: int = 4096, seconds: float = 4.0) -> dict[str, Any]:
    """Replicate a database that is written to, move, and hold what came of it against the source and a restore."""
    need(line)
    disk = folder / "disk"
    disk.mkdir()
    database = disk / "app.db"
    settings = BRISK if line == "0.5" else {}
    with (
        application(database, page_size) as connection,
        Litestream(line, database, folder, place.replica, settings) as litestream,
    ):
        litestream.start()
        write(connection, seconds)
        if line == "0.3":
            time.sleep(1.5)  # it does not send the rest when it ends
        litestream.stop()
        expected = connection.serialize()
        said, image = moved(place, folder)
        litestream.restore(folder / "theirs.db")
    assert same_pages(image, expected, page_size)
    theirs = (folder / "theirs.db").read_bytes()
    assert same_pages(image, theirs, page_size)
    assert said["page_size"] == page_size
    return said


@pytest.mark.parametrize("page_size", [512, pytest.param(1024, marks=pytest.mark.soak), 4096, 65536])
def test_a_folder(tmp_path: Path, page_size: int) -> None:
    """A replica in a folder, of a database with any page size: page for page the source, and what it restores to."""
    said = check("0.5", in_folder(tmp_path, sync_interval="100ms"), tmp_path, page_size=page_size)
    assert said["litestream"]["version"] == "0.5"


@pytest.mark.parametrize("sync_interval", ["50ms", pytest.param("2s", marks=pytest.mark.soak)])
def test_a_bucket(tmp_path: Path, moto: MotoServer, sync_interval: str) -> None:
    """A replica in a bucket, with a prefix, however often it is synced."""
    check("0.5", in_bucket(moto.new_bucket_url("apps/app"), sync_interval=sync_interval), tmp_path)


def test_a_gateway(tmp_path: Path, versitygw: str) -> None:
    """A replica in a bucket of another make."""
    credentials = {
        "AWS_ACCESS_KEY_ID": versitygw_server.ACCESS_KEY_ID,
        "AWS_SECRET_ACCESS_KEY": versitygw_server.SECRET_ACCESS_KEY,
    }
    url, _, query = versitygw.partition("?")
    check("0.5", in_bucket(f"{url.rstrip('/')}/app?{query}", credentials), tmp_path)


def test_defaults(tmp_path: Path) -> None:
    """Without a snapshot of its own yet, as Litestream is in its first day."""
    need("0.5")
    disk = tmp_path / "disk"
    disk.mkdir()
    place = in_folder(tmp_path)
    with (
        application(disk / "app.db", 4096) as connection,
        Litestream("0.5", disk / "app.db", tmp_path, place.replica) as litestream,
    ):
        litestream.start()
        write(connection, 2.5)
        litestream.stop()
        expected = connection.serialize()
    said, image = moved(place, tmp_path)
    assert image == expected
    assert said["litestream"]["files"] >= 1


def test_0_3_in_a_folder(tmp_path: Path) -> None:
    """A replica of 0.3 in a folder, with several snapshots."""
    said = check("0.3", in_folder(tmp_path, sync_interval="200ms", snapshot_interval="1s"), tmp_path)
    assert said["litestream"]["version"] == "0.3"


def test_0_3_in_a_bucket(tmp_path: Path, moto: MotoServer) -> None:
    """A replica of 0.3 in a bucket."""
    place = in_bucket(moto.new_bucket_url("app"), sync_interval="200ms", snapshot_interval="1s")
    check("0.3", place, tmp_path, page_size=1024)


def test_while_it_is_running(tmp_path: Path) -> None:
    """While Litestream compacts and deletes, and the application writes on, each import is a state that there was."""
    need("0.5")
    disk = tmp_path / "disk"
    disk.mkdir()
    place = in_folder(tmp_path, sync_interval="50ms")
    brisk = {**BRISK, "l0-retention": "1s", "l0-retention-check-interval": "500ms"}
    with (
        application(disk / "app.db", 1024) as connection,
        Litestream("0.5", disk / "app.db", tmp_path, place.replica, brisk) as litestream,
    ):
        litestream.start()
        stop = threading.Event()

        def insert() -> None:
            while not stop.is_set():
                connection.execute("INSERT INTO t(v) VALUES (randomblob(500))")
                stop.wait(0.005)

        writer = threading.Thread(target=insert)
        writer.start()
        try:
            wait_until(lambda: litestream.said("compaction complete"), 30)
            seen = [0]
            for _ in range(4):
                replicad(place, "push", "--from-litestream", place.url, *_ours(tmp_path))
                target = tmp_path / f"{len(seen)}.db"
                replicad(place, "restore", *_ours(tmp_path), "--output", str(target))
                with closing(sqlite3.connect(target)) as restored:
                    assert restored.execute("PRAGMA integrity_check").fetchone() == ("ok",)
                    seen += restored.execute("SELECT max(n) FROM t WHERE n = (SELECT count(*) FROM t)").fetchone()
        finally:
            stop.set()
            writer.join()
    assert seen == sorted(set(seen)), "each is later than the one before"
    entries = replicad(place, "log", *_ours(tmp_path))["entries"]
    assert [entry["txid"] for entry in entries] == [4, 3, 2, 1]
    assert [entry["ms"] for entry in entries] == sorted((entry["ms"] for entry in entries), reverse=True)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_across_the_lock_page(tmp_path: Path, figure: Callable[[str], None]) -> None:
    """A database beyond 1 GiB: the lock page is left out on every way."""
    need("0.5")
    disk = tmp_path / "disk"
    disk.mkdir()
    place = in_folder(tmp_path)
    with (
        application(disk / "app.db", 4096) as connection,
        Litestream("0.5", disk / "app.db", tmp_path, place.replica) as litestream,
    ):
        for _ in range(110):
            rows = ", ".join(["(randomblob(100000))"] * 100)
            connection.execute(f"INSERT INTO t(v) VALUES {rows}")
        litestream.start()
        wait_until(lambda: litestream.said("compaction complete"), 300)
        connection.execute("INSERT INTO t(v) VALUES ('the last one')")
        litestream.stop()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    began = time.monotonic()
    said, image = moved(place, tmp_path)
    figure(f"{len(image) >> 20} MiB moved and restored in {time.monotonic() - began:.1f} s")
    assert same_pages(image, (disk / "app.db").read_bytes(), 4096)
    assert said["pages"] > lock_page(4096)
