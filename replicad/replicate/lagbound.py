"""`max_lag`: a hard bound on what a dying disk takes with it.

Replication is asynchronous. When the oldest commit that is not durable is older than the bound, the application's
writers wait until everything is durable again; readers go on. While the process lives, no more can be lost than was
committed within that time.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from replicad.errors import ReplicadError
from replicad.observe import events

if TYPE_CHECKING:
    from replicad.replicate.follower import Follower

REASON = "max_lag"
_LEAST_PAUSE_SECONDS = 0.01
_RETRY_SECONDS = 1.0  # after SQLite could not


class LagBound:
    """Keeps one follower's writers within the bound."""

    def __init__(self, follower: Follower, max_lag_seconds: float) -> None:
        self._follower = follower
        self._following = follower.following
        self._max_lag_seconds = max_lag_seconds

    async def run(self) -> None:
        """Freeze and thaw until cancelled."""
        while True:
            left_seconds = self._max_lag_seconds - self._lag_seconds()
            if left_seconds <= 0:
                await self._keep_writers_out()
            else:
                # A commit that comes later than now is due later than this, so nothing needs to be looked at before.
                await asyncio.sleep(max(left_seconds, _LEAST_PAUSE_SECONDS))

    def _lag_seconds(self) -> float:
        if not self._following.ledger.pending:
            return 0.0  # the age of the oldest commit is brought up to date a moment after all of them are durable
        return self._following.ledger.lag_seconds(self._following.tools.clock.now_ms())

    async def _keep_writers_out(self) -> None:
        following, clock = self._following, self._following.tools.clock
        following.metrics.lag_freezes += 1
        following.log.warning(events.LAG_FROZEN, lag_seconds=round(self._lag_seconds(), 3))
        await self._follower.freeze(REASON)
        began_at = clock.monotonic()
        await self._until_durable()
        await self._follower.thaw(REASON)
        frozen_seconds = clock.monotonic() - began_at
        following.metrics.frozen.observe(frozen_seconds)
        following.log.info(events.LAG_THAWED, frozen_seconds=round(frozen_seconds, 3))

    async def _until_durable(self) -> None:
        while True:
            try:
                await self._follower.sync()
            except ReplicadError as error:  # of the database; a store that is away is waited for
                following = self._following
                following.metrics.errors[type(error).__name__] += 1
                following.log.warning(events.CAPTURE_FAILED, error=str(error))
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return
