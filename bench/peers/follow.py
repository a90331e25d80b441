"""What replication costs that proves nothing: what is written to a WAL is read, packed and uploaded, and that is all.

    python -m bench.peers.follow URL DATABASE [pinned]

It looks at the WAL's index 500 times a second, reads what is new, packs it a MiB at a time as replicad does (zstd, the
same level), and uploads what there is once a second. It holds no lock and no pin: what a checkpoint takes away between
two looks is lost to it. No page is told apart from another, nothing is hashed, ordered or confirmed.

Pinned, it holds a read transaction from the first commit on: no checkpoint gets anywhere then, and no commit waits for
one.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import time
from functools import partial
from pathlib import Path

from bench.peers.raw_wal import RawWAL, pack
from replicad.store.open import open_store

_LOOK_SECONDS = 0.002
_SEND_SECONDS = 1.0
_PIECE_BYTES = 1 << 20


class Reader:
    """Reads what is new in a WAL, and packs it."""

    def __init__(self, database: Path, *, pinned: bool) -> None:
        while not Path(f"{database}-shm").exists():
            time.sleep(_LOOK_SECONDS)
        self._wal = RawWAL(database)
        if pinned:
            while not self._wal.look()[0]:  # before there is a frame, each commit tries a checkpoint at length, in vain
                time.sleep(_LOOK_SECONDS)
            self._pin = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
            self._pin.execute("BEGIN")
            self._pin.execute("SELECT count(*) FROM sqlite_master").fetchone()
        self._salts, self._frame = b"", 0
        self._unpacked = bytearray()

    def step(self) -> bytes:
        """Return what can be packed by now, packed."""
        last, salts = self._wal.look()
        if salts != self._salts:
            self._salts, self._frame = salts, 0
        if last > self._frame:
            self._unpacked += self._wal.read(self._frame, last)
            self._frame = last
        if len(self._unpacked) < _PIECE_BYTES:
            return b""
        packed, self._unpacked = pack(self._unpacked), bytearray()
        return packed


async def follow(url: str, database: Path, *, pinned: bool) -> None:
    """Do so until killed."""
    store = await open_store(url)
    await store.put("noise/ready", b"")
    reader, body, number = await asyncio.to_thread(partial(Reader, database, pinned=pinned)), bytearray(), 0
    sending: asyncio.Task[None] | None = None
    due_at = time.monotonic() + _SEND_SECONDS
    while True:
        body += await asyncio.to_thread(reader.step)
        now = time.monotonic()
        if now >= due_at and body and (sending is None or sending.done()):
            sending = asyncio.ensure_future(store.put(f"noise/{number:08}.seg", bytes(body)))
            body, number, due_at = bytearray(), number + 1, now + _SEND_SECONDS
        await asyncio.sleep(_LOOK_SECONDS)


def main() -> None:
    """Do so."""
    url, database, *pinned = sys.argv[1:]
    asyncio.run(follow(url, Path(database), pinned=pinned == ["pinned"]))


if __name__ == "__main__":
    main()
