"""What the owner of a database does beside capture: duties, each by itself, so that none stops another or capture.

A duty sees that a database's history stays small, provable or in two places. It runs while the database is followed,
whether or not there is a session, and is cancelled before the epoch ends: whatever it was about has to be safe to break
off between any two steps, and to begin again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from replicad.errors import ReplicadError
from replicad.observe import events
from replicad.restore.together import apart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicad.replicate.following import Following

RETRY_SECONDS = 60.0  # after a duty failed: nothing waits for it


class Duty(Protocol):
    """Work that goes on for as long as a database is followed."""

    @property
    def name(self) -> str:
        """What log lines call it."""
        ...

    async def run(self) -> None:
        """Do it, whenever it is due. Begun again after a failure; returns when there is nothing to do, ever."""
        ...


async def do_all(following: Following, duties: Sequence[Duty], *, retry_seconds: float = RETRY_SECONDS) -> None:
    """Do each duty, and again when it fails, until cancelled."""
    async with asyncio.TaskGroup() as group:
        for duty in duties:
            group.create_task(_do(following, duty, retry_seconds), name=f"{duty.name} {following.path.name}")


async def _do(following: Following, duty: Duty, retry_seconds: float) -> None:
    while True:
        try:
            await apart(duty.run())
        except ReplicadError as error:
            following.metrics.errors[type(error).__name__] += 1
            following.log.warning(events.DUTY_FAILED, duty=duty.name, error=str(error))
        except Exception as error:  # one duty's fault must not stop the application, capture or the other duties
            following.metrics.errors[type(error).__name__] += 1
            following.log.exception(events.FAULT_ISOLATED, duty=duty.name)
        else:
            return
        await asyncio.sleep(retry_seconds)
