"""What replication with this S3 client cannot be faster than: a process that waits for one commit, and sends it.

    python -m bench.peers.wake URL DATABASE

It sleeps until the kernel says that the WAL was written to, keeps looking at its index until the commit is there, reads
the new frames, packs them, and puts them by the client that replicad uses, on a connection that is open already: with
no pin, no order, no proof, and nothing else to do. It does not keep a core busy in between, as nobody can who shares a
machine.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from pathlib import Path

from bench.peers.raw_wal import RawWAL, pack
from replicad.store.open import open_store

_IN_MODIFY = 2
_EVENTS_BYTES = 4096


async def wake(url: str, database: Path) -> None:
    """Do so until killed."""
    store = await open_store(url)
    await store.put("noise/ready", b"")
    libc, wal, written = ctypes.CDLL(None), RawWAL(database), asyncio.Event()
    notices = libc.inotify_init()
    libc.inotify_add_watch(notices, os.fsencode(f"{database}-wal"), _IN_MODIFY)

    def note() -> None:
        os.read(notices, _EVENTS_BYTES)  # at once: an event that nobody takes keeps the loop awake
        written.set()

    asyncio.get_running_loop().add_reader(notices, note)
    seen, _ = wal.look()
    while True:
        await written.wait()
        written.clear()
        while (last := wal.look()[0]) == seen:
            pass
        body, seen = pack(wal.read(min(seen, last), last)), last
        await store.put("noise/wake", body)


def main() -> None:
    """Do so."""
    url, database = sys.argv[1:]
    asyncio.run(wake(url, Path(database)))


if __name__ == "__main__":
    main()
