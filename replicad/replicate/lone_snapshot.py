"""What a snapshot is taken with where nobody follows the database: a state that is held once, and a plain sender."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from replicad.host.interruptible import Interrupted
from replicad.position import NO_WAL
from replicad.replicate.pinned import Pinned
from replicad.replicate.ship import missing
from replicad.sqlite.image import Image
from replicad.store.database import chunk_names

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable

    from replicad.position import TXID
    from replicad.replicate.asking import Asking
    from replicad.replicate.tenure import Tenure
    from replicad.restore.progress import Progress
    from replicad.snapshot import ChunkNames
    from replicad.store.protocol import ObjectStore
    from replicad.wal import PageTable


class WatchedImage(Image):
    """An image that tells of what is read, and stops when it is told to. Read in threads, one at a time."""

    stop: threading.Event | None = None
    _told: Callable[[int], object] | None = None

    def tell(self, progress: Progress) -> None:
        """Tell of every read from now on; called on the event loop."""
        loop = asyncio.get_running_loop()
        self._told = lambda n_bytes: loop.call_soon_threadsafe(progress.advanced, n_bytes)

    def read(self, first: int, count: int) -> bytearray:
        """Return `count` pages from number `first`, as `Image.read`.

        Raises:
            Interrupted: `stop` is set.
        """
        if self.stop is not None and self.stop.is_set():
            raise Interrupted
        raw = super().read(first, count)
        if self._told is not None:
            self._told(len(raw))
        return raw


class OnePin:
    """A state that is held still from before to after. Implements snapshots.Pins."""

    def __init__(self, image: Image, table: PageTable, *, txid: TXID, ms: int) -> None:
        self.let_go = asyncio.Event()
        self._pinned = Pinned(
            txid=txid,
            ms=ms,
            position=NO_WAL,
            image=image,
            table=table,
            dirty=frozenset(),
            still=False,  # whoever writes past SQLite's locks is found out, not blamed on the page table
            release=_nothing_to_release,
        )

    async def take(self) -> Pinned:
        """Return the state."""
        return self._pinned

    async def release(self, pinned: Pinned) -> None:
        """Keep it."""
        del pinned


class CountingSender:
    """Stores the objects of a snapshot while the epoch is ours; without a tenure it only counts them.

    Implements snapshots.Sender.
    """

    def __init__(self, store: ObjectStore, asking: Asking) -> None:
        self.tenure: Tenure | None = None
        self.sent_bytes = 0
        self._store = store
        self._asking = asking

    async def chunk_names(self) -> ChunkNames:
        """Return how the replica names its chunks."""
        return await chunk_names(self._store)

    async def until_may_ship(self) -> None:
        """Return at once: the epoch is begun."""

    async def object(self, key: str, body: bytes) -> None:
        """Store an object, or give up when the store has been away for as long as it is tried."""
        if self.tenure is not None:
            await self._store.put(key, body)
        self.sent_bytes += len(body)

    async def confirm(self) -> None:
        """Return if the epoch is still ours.

        Raises:
            OwnedByAnother: it is not.
        """
        if self.tenure is not None and not await self.tenure.still_owned():
            raise self._asking.overtaken()

    async def lost(self, keys: Iterable[str], prefixes: Iterable[str]) -> set[str]:
        """Return which of these stored keys are not there any more."""
        return await missing(self._store, keys, prefixes)


def _nothing_to_release() -> None:
    """The file holds its state until it is closed."""
