"""What the parts of one attempt share: where bytes come from, where they go, and how much may be in flight.

Two budgets keep an attempt from locking up: segments opened ahead wait for their turn while they hold memory,
so they have a share of their own; what is being written waits for nobody.
"""

from __future__ import annotations

import mmap
import threading
from typing import TYPE_CHECKING

from replicad.restore.budget import MemoryBudget
from replicad.restore.older import Shelf, Wanted
from replicad.restore.overlay import MOST_BYTES, Overlay
from replicad.restore.settled import Settled

if TYPE_CHECKING:
    from replicad.restore.fetch import Fetch
    from replicad.restore.image import Image
    from replicad.restore.progress import Progress
    from replicad.restore.prove import Proof

AHEAD_SHARE = 8
"""The part of the memory that segments opened ahead may take."""

_SHELF_SHARE = 8  # the part of it that older pages may take, beside what is in flight
_ROOM_STEP_BYTES = 1 << 20  # so that blocks that grow a little do not each need a new one
_SPARE_SHARE = 2  # the part of the disk's room beside the database that may be used for a while


class Workshop:
    """One attempt at putting a database together in `image`, which `proof` reads back; closed at its end."""

    def __init__(self, fetch: Fetch, image: Image, proof: Proof, progress: Progress, *, memory_bytes: int) -> None:
        self._rooms = threading.local()
        self.fetch = fetch
        self.image = image
        self.proof = proof
        self.progress = progress
        self.settled = Settled(image.pages, image.page_size)
        shelf_bytes = memory_bytes // _SHELF_SHARE
        self.shelf = Shelf(image.path.parent, page_size=image.page_size, memory_bytes=shelf_bytes)
        self.wanted = Wanted(self.shelf)
        room_bytes = min(MOST_BYTES, image.spare_bytes // _SPARE_SHARE) if image.is_direct else 0
        self.overlay = Overlay(image.path.parent, page_size=image.page_size, room_bytes=room_bytes)
        self.ahead = MemoryBudget(memory_bytes // AHEAD_SHARE)
        self.work = MemoryBudget(memory_bytes - memory_bytes // AHEAD_SHARE)

    def room(self, n_bytes: int) -> memoryview:
        """Return this thread's room for so many unpacked bytes, good until it is asked for again.

        Memory that is given back and asked for again with each chunk costs as much as half the unpacking.
        """
        found: memoryview | None = getattr(self._rooms, "found", None)
        if found is None or len(found) < n_bytes:
            # not a bytearray: what is written past the page cache begins at a page of memory
            found = self._rooms.found = memoryview(mmap.mmap(-1, -(-n_bytes // _ROOM_STEP_BYTES) * _ROOM_STEP_BYTES))
        return found[:n_bytes]

    def lay_down(self) -> None:
        """Write into the image what no chunk has taken from the overlay. Blocks.

        Raises:
            NoSpace: the disk is full.
            FileUnusable: it cannot be written or read for another reason.
        """
        for frames, images in self.overlay.rest():
            self.image.write_frames(frames, images, 0)

    def close(self) -> None:
        """Let go of what is kept on the disk."""
        self.shelf.close()
        self.overlay.close()
