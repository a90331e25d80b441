"""A restore beside what it cannot do without: writing as much as the database, and fetching its objects.

    python -m bench.restoring <replica URL> [KEY...]     fetch all objects, or these; the seconds on standard output

The three are measured by turns, each as a process of its own, and the best of each counts: the machine may be busy
with something else. Both that fetch do so from a server that was just started: rclone hashes an object when it is
asked for it the first time, which takes as long as all the rest, and who came second would not have to wait for it.
A listing makes it hash all objects, one after the other; so fetching is measured with one, as `aws s3 cp --recursive`
does it, and by keys that are known, with nothing but the GETs.
"""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bench.process import memory_bytes
from replicad.store.open import open_store
from replicad.store.options import StoreOptions
from tests.support.rclone_server import ACCESS_KEY_ID, SECRET_ACCESS_KEY, running_rclone

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MIB = 1 << 20
KEYS = {"AWS_ACCESS_KEY_ID": ACCESS_KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY}

_TURNS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """One restore, seen from outside."""

    seconds: float  # from the start of the process to its end
    cpu_seconds: float
    peak_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """The best of all turns, and the most memory of any."""

    plain_seconds: float
    fetch_seconds: float  # listing included
    get_seconds: float
    restore: Restored

    @property
    def ratio(self) -> float:
        """The speed of the restore, as a part of that of the slower of the other two."""
        return max(self.plain_seconds, self.fetch_seconds) / self.restore.seconds

    @property
    def strict_ratio(self) -> float:
        """The same, against a fetch that knows beforehand what there is."""
        return max(self.plain_seconds, self.get_seconds) / self.restore.seconds


def compare(folder: Path, served: Path, database: Path) -> Compared:
    """Write, fetch and restore by turns.

    Args:
        folder: where files are written.
        served: what the server serves; the bucket that is given out first holds the replica and nothing else.
        database: the original.
    """
    plain: list[float] = []
    fetch: list[float] = []
    get: list[float] = []
    restored: list[Restored] = []
    for _ in range(_TURNS):
        with running_rclone(served) as rclone:
            fetch.append(fetch_alone(rclone.new_bucket_url()))
        with running_rclone(served) as rclone:
            url = rclone.new_bucket_url()
            bucket = served / urlsplit(url).netloc
            keys = [str(path.relative_to(bucket)) for path in bucket.rglob("*") if path.is_file()]
            get.append(fetch_alone(url, keys))
        plain.append(write_plain(folder / "plain", database.stat().st_size))
        with running_rclone(served) as rclone:
            restored.append(restore(rclone.new_bucket_url(), database, folder / "restored.db"))
    return Compared(
        plain_seconds=min(plain),
        fetch_seconds=min(fetch),
        get_seconds=min(get),
        restore=Restored(
            seconds=min(one.seconds for one in restored),
            cpu_seconds=min(one.cpu_seconds for one in restored),
            peak_bytes=max(one.peak_bytes for one in restored),
        ),
    )


def write_plain(path: Path, size_bytes: int) -> float:
    """Write this much with dd and fsync; return the seconds."""
    command = ["dd", "if=/dev/zero", f"of={path}", "bs=1M", f"count={size_bytes // MIB}", "conv=fsync"]
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    seconds = time.perf_counter() - began
    path.unlink()
    return seconds


def fetch_alone(url: str, keys: Sequence[str] = ()) -> float:
    """Fetch these objects of a bucket, or all, in a process of its own; return the seconds."""
    command = [sys.executable, "-m", "bench.restoring", url, *keys]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def restore(url: str, database: Path, output: Path) -> Restored:
    """Restore the database to another file by the command, and remove it."""
    command = [sys.executable, "-m", "replicad", "restore", "--json", "--database", str(database)]
    command += ["--replica", url, "--output", str(output)]
    before = _cpu_seconds_of_children()
    began = time.perf_counter()
    process = subprocess.Popen(command, env={**os.environ, **KEYS}, stdout=subprocess.DEVNULL)
    peak_bytes = 0
    while process.poll() is None:
        peak_bytes = max(peak_bytes, memory_bytes(process.pid, "VmHWM"))
        time.sleep(0.02)
    seconds = time.perf_counter() - began
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    output.unlink()
    return Restored(seconds=seconds, cpu_seconds=_cpu_seconds_of_children() - before, peak_bytes=peak_bytes)


def _cpu_seconds_of_children() -> float:
    """Return the CPU time of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def _fetch(url: str, known: Sequence[str]) -> float:
    """Open a store and fetch these objects, or all, eight at a time, to do nothing with them; return the seconds."""
    options = StoreOptions(access_key_id=ACCESS_KEY_ID, secret_access_key=SECRET_ACCESS_KEY)
    began = time.perf_counter()
    store = await open_store(url, options)
    keys = iter(known or [found.key async for found in store.list("")])

    async def work() -> None:
        for key in keys:
            await store.get(key)

    async with asyncio.TaskGroup() as group:
        for _ in range(options.concurrency):
            group.create_task(work())
    seconds = time.perf_counter() - began
    await store.close()
    return seconds


if __name__ == "__main__":
    print(asyncio.run(_fetch(sys.argv[1], sys.argv[2:])))
