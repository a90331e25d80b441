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

from bench.peers.wal_index import WALIndex
from replicad import zstd
from replicad.store.open import open_store
from replicad.wal import frame_offset

_IN_MODIFY = 2
_EVENTS_BYTES = 4096
_PAGE_SIZE = 4096
_LEVEL = 1  # of zstd: replicad's default


async def wake(url: str, database: Path) -> None:
    """Do so until killed."""
    store = await open_store(url)
    await store.put("noise/ready", b"")
    notices, written = ctypes.CDLL(None).inotify_init(), asyncio.Event()
    wal, index = os.open(f"{database}-wal", os.O_RDONLY), WALIndex(database)
    ctypes.CDLL(None).inotify_add_watch(notices, os.fsencode(f"{database}-wal"), _IN_MODIFY)
    asyncio.get_running_loop().add_reader(notices, written.set)
    seen, _ = index.look()
    while True:
        await written.wait()
        os.read(notices, _EVENTS_BYTES)
        written.clear()
        while (last := index.look()[0]) == seen:
            pass
        seen = min(seen, last)
        begin, end = (frame_offset(frame + 1, _PAGE_SIZE) for frame in (seen, last))
        seen, body = last, zstd.compress(os.pread(wal, end - begin, begin), _LEVEL)
        await store.put("noise/wake", body)


def main() -> None:
    """Do so."""
    url, database = sys.argv[1:]
    asyncio.run(wake(url, Path(database)))


if __name__ == "__main__":
    main()
