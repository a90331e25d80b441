"""Whether the store keeps two claims of one epoch apart: found out before this process asks for an epoch or claims one.

A store that honours a conditional create decides between two claimants by itself. One that ignores the condition says
yes to both, without a word; one that lacks it says so. Before the first claim it is tried on a random key (four
requests, sixteen bytes that are deleted again): not at a restart on the same disk, which claims nothing until there
is something to store.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

from replicad.errors import ConditionalWritesUnsupported
from replicad.observe import events
from replicad.store.create import probe_conditional_writes

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from replicad.observe.metrics import DatabaseMetrics
    from replicad.store.protocol import ObjectStore

Fencing = Literal["auto", "required", "advisory"]


class Fence:
    """What stands between two owners in one store. Lives on the event loop."""

    def __init__(
        self, store: ObjectStore, fencing: Fencing, metrics: DatabaseMetrics, log: FilteringBoundLogger
    ) -> None:
        self._store = store
        self._fencing = fencing
        self._metrics = metrics
        self._log = log
        self._trying = asyncio.Lock()

    @property
    def is_advisory(self) -> bool | None:
        """Whether the store does not decide between two claimants; None as long as nothing was claimed."""
        return self._metrics.fencing_advisory

    async def holds(self) -> bool:
        """Return whether the store decides between two claimants.

        Raises:
            ConditionalWritesUnsupported: it does not, and `fencing: required` wants it to.
            CreateUndecided, StoreUnreachable, StoreRefused: it is not known; ask again.
        """
        async with self._trying:
            if self.is_advisory is None:
                self._metrics.fencing_advisory = not await self._find_out()
        return not self.is_advisory

    async def _find_out(self) -> bool:
        if self._fencing == "advisory":
            self._log.warning(events.FENCING_ADVISORY, reason="fencing: advisory")
            return False
        if await probe_conditional_writes(self._store):
            return True
        found = "a second create of one key was not refused"
        if self._fencing == "required":
            raise ConditionalWritesUnsupported(store=self._store.url, operation="create", found=found)
        self._log.warning(events.FENCING_ADVISORY, reason=found, store=self._store.url)
        return False
