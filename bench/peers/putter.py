"""What uploads cost that say nothing: objects of one size in a rhythm, by the S3 client that replicad uses.

    python -m bench.peers.putter URL DATABASE OBJECT_BYTES INTERVAL_SECONDS GLANCES_PER_SECOND

Behind each it looks for an object that is not there, as an owner looks for one who took its place. It captures nothing.
With GLANCES_PER_SECOND it looks how far the WAL has come, so often, by a timer of the event loop: nobody can tell when
a commit was made who does not look.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

from bench.peers.raw_wal import RawWAL
from replicad.errors import ObjectMissing
from replicad.store.open import open_store


async def put(url: str, object_bytes: int, interval_seconds: float) -> None:
    """Do so until killed."""
    store, body = await open_store(url), os.urandom(object_bytes)
    began, number = time.monotonic(), 0
    while True:
        await store.put(f"noise/{number:08}.seg", body)
        try:
            await store.get("noise/missing")
        except ObjectMissing:
            number += 1
        await asyncio.sleep(max(0.0, began + number * interval_seconds - time.monotonic()))


def glance(wal: RawWAL, pause_seconds: float) -> None:
    """Look how far the WAL has come, now and from now on."""
    wal.look()
    asyncio.get_running_loop().call_later(pause_seconds, glance, wal, pause_seconds)


async def run(url: str, database: Path, object_bytes: int, interval_seconds: float, glances: float) -> None:
    """Do both."""
    if glances:
        glance(RawWAL(database), 1 / glances)
    await put(url, object_bytes, interval_seconds)


def main() -> None:
    """Do so."""
    url, database, object_bytes, interval_seconds, glances = sys.argv[1:]
    asyncio.run(run(url, Path(database), int(object_bytes), float(interval_seconds), float(glances)))


if __name__ == "__main__":
    main()
