"""What the loops around one database share."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from replicad.errors import FileUnusable, NoSpace
from replicad.observe import events
from replicad.replicate.state_file import state_of, write_state

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger

    from replicad.config.model import Settings
    from replicad.host.threads import Threads
    from replicad.observe.metrics import DatabaseMetrics
    from replicad.position import Position, WALPosition
    from replicad.replicate.capture import Capture
    from replicad.replicate.ledger import Ledger
    from replicad.replicate.lineage import Lineage
    from replicad.replicate.mirror import Mirror
    from replicad.replicate.removal import Removal
    from replicad.replicate.ship import Shipper
    from replicad.replicate.snapshots import Snapshots
    from replicad.replicate.tenure import Tenure
    from replicad.replicate.tools import Tools

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Following:
    """What stays the same while a database is followed, across sessions."""

    path: Path
    settings: Settings
    lineage: Lineage
    tenure: Tenure
    ledger: Ledger
    shipper: Shipper
    snapshots: Snapshots
    removal: Removal
    tools: Tools
    metrics: DatabaseMetrics
    log: FilteringBoundLogger
    mirrors: tuple[Mirror, ...] = ()


class Turn:
    """One thing at a time on a capture: every call of it in a thread, under one lock."""

    def __init__(self, threads: Threads, capture: Capture, *, used: Callable[[], None]) -> None:
        """`used` is called behind every call, before anybody else has a turn: what was read is counted at once.

        Who asks what was committed and finds it read already must not be told of less.
        """
        self.capture = capture
        self.lock = asyncio.Lock()
        self.reading = asyncio.Event()  # not set while the WAL is let go: nothing protects frames that were not read
        self.reading.set()
        self._threads = threads
        self.count = used

    @asynccontextmanager
    async def while_reading(self) -> AsyncIterator[None]:
        """Hold the lock, as soon as it is one's turn and the WAL is not let go."""
        while True:
            await self.reading.wait()
            async with self.lock:
                if self.reading.is_set():  # it may have been let go while this waited for its turn
                    yield
                    return

    async def take(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that uses the capture, when it is its turn."""
        async with self.lock:
            return await self.within(function, *args, **kwargs)

    async def within(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that uses the capture; the caller holds the lock."""
        try:
            return await self._threads.run(function, *args, **kwargs)
        finally:
            self.count()


async def record_state(following: Following, position: Position, wal: WALPosition) -> None:
    """Write the state file: this transaction is durable, and ends here in the WAL.

    While the epoch is not claimed yet, or lost, the state that was written before is as true, and what it says of the
    claim is truer.
    """
    if not following.tenure.claimed.is_set() or following.tenure.lost.is_set():
        return
    lineage = following.lineage
    state = state_of(position, wal, database_id=lineage.database_id, claim_id=lineage.claim_id)
    try:
        await following.tools.threads.run(write_state, following.path, state)
    except (NoSpace, FileUnusable) as error:  # an older state is as true: a restart has a little more to prove
        following.metrics.errors[type(error).__name__] += 1
        following.log.warning(events.STATE_NOT_WRITTEN, error=str(error))


async def wait_for(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, but not longer."""
    if seconds > 0 and not event.is_set():
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return
