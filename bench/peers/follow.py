"""What replication costs that proves nothing: what is written to a WAL is read, packed and uploaded, and that is all.

    python -m bench.peers.follow URL DATABASE

It keeps the WAL from being reset before it has read it, as every replication has to that is to lose nothing: by a read
transaction that moves on every 150 ms, with a checkpoint now and then behind everything that was read. It looks at the
WAL's index 500 times a second, reads what is new, packs it a MiB at a time as replicad does (zstd, the same level), and
uploads what there is once a second. No page is told apart from another, nothing is hashed, ordered or confirmed.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

from replicad import zstd
from replicad.sqlite.source import Source
from replicad.store.open import open_store
from replicad.wal import frame_offset

_LOOK_SECONDS = 0.002
_PIN_SECONDS = 0.15  # replicad's too, and for the same reason: see replicate/beat.py
_SEND_SECONDS = 1.0
_PIECE_BYTES = 1 << 20
_ROOM_BYTES = 16 << 20  # replicad's default for `checkpoint_wal_bytes`
_REST_BYTES = 1 << 20  # copied while writers wait
_LEVEL = 1  # of zstd: replicad's default
_LOCK_SECONDS = 0.2


class Reader:
    """Reads what is new in a WAL, and packs it."""

    def __init__(self, database: Path) -> None:
        self._source = Source(database)
        self._source.hold()
        self._wal = os.open(f"{database}-wal", os.O_RDONLY)
        self._salts, self._frame = b"", 0
        self._unpacked = bytearray()
        self._moved_at = time.monotonic()
        self._on_zero = True

    def step(self) -> bytes:
        """Return what can be packed by now, packed."""
        self._read()
        # Under a pin on mark 0 the application's own checkpoints would get nowhere, at every commit: decision 0006.
        if (self._on_zero and self._frame) or time.monotonic() - self._moved_at >= _PIN_SECONDS:
            self._move()
            if self._frame * self._source.page_size >= _ROOM_BYTES:
                self._make_room()
        if len(self._unpacked) < _PIECE_BYTES:
            return b""
        packed, self._unpacked = zstd.compress(self._unpacked, _LEVEL), bytearray()
        return packed

    def _read(self) -> None:
        index = self._source.index()
        if index.salts != self._salts:
            self._salts, self._frame = index.salts, 0
        if index.frames > self._frame:
            begin, end = (frame_offset(frame + 1, self._source.page_size) for frame in (self._frame, index.frames))
            self._unpacked += os.pread(self._wal, end - begin, begin)
            self._frame = index.frames

    def _move(self) -> None:
        index = self._source.index()
        self._source.hold_next()
        self._read()
        self._source.release_previous()
        self._moved_at, self._on_zero = time.monotonic(), index.frames == index.backfilled

    def _make_room(self) -> None:
        """Have the next writer begin the WAL again."""
        while True:
            self._move()
            self._source.backfill()
            index = self._source.index()
            if (index.frames - index.backfilled) * self._source.page_size <= _REST_BYTES:
                break
        with self._source.write_lock(timeout_seconds=_LOCK_SECONDS) as locked:
            if locked:
                self._move()
                self._source.backfill()
                self._move()


async def follow(url: str, database: Path) -> None:
    """Do so until killed."""
    store = await open_store(url)
    reader, body, number = await asyncio.to_thread(Reader, database), bytearray(), 0
    await store.put("noise/ready", b"")
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
    url, database = sys.argv[1:]
    asyncio.run(follow(url, Path(database)))


if __name__ == "__main__":
    main()
