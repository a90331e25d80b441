"""One state of the database, held still for a snapshot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicad.position import TXID, WALPosition
    from replicad.sqlite.image import Image
    from replicad.wal import PageTable

EXTENT_BYTES = 1 << 20
"""What is remembered of a written page is the extent it lies in; every chunk of a snapshot is some extents."""


class StateMoved(Exception):
    """The database changed while a state of it was read that nothing holds still."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned:
    """The state after a transaction: its pages, and what they must hash to."""

    txid: TXID
    ms: int  # commit time
    position: WALPosition  # where in the WAL it ends
    image: Image
    table: PageTable
    dirty: frozenset[int]  # extents written since the last state that was held still, or since capture began
    still: bool = True  # False: the database may change while it is read, and then the snapshot is begun again
    release: Callable[[], None]  # blocks, and uses the capture: only when it is one's turn
