"""What the parts of one attempt share: where bytes come from, where they go, and how much may be in flight.

Two budgets keep an attempt from locking up: segments opened ahead wait for their turn while they hold memory,
so they have a share of their own; what is being written waits for nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.restore.budget import MemoryBudget
from replicad.restore.settled import Settled

if TYPE_CHECKING:
    from replicad.restore.fetch import Fetch
    from replicad.restore.image import Image
    from replicad.restore.progress import Progress
    from replicad.restore.prove import Proof

_AHEAD_SHARE = 8  # the part of the memory that segments opened ahead may take


class Workshop:
    """One attempt at putting a database together in `image`, which `proof` reads back."""

    def __init__(self, fetch: Fetch, image: Image, proof: Proof, progress: Progress, *, memory_bytes: int) -> None:
        self.fetch = fetch
        self.image = image
        self.proof = proof
        self.progress = progress
        self.settled = Settled(image.pages, image.page_size)
        self.ahead = MemoryBudget(memory_bytes // _AHEAD_SHARE)
        self.work = MemoryBudget(memory_bytes - memory_bytes // _AHEAD_SHARE)
