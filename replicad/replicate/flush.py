"""The final flush of one database, and what to say when it cannot be done."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from replicad.errors import FinalFlushFailed, ReplicadError

if TYPE_CHECKING:
    from replicad.replicate.follower import Follower
    from replicad.replicate.ledger import Ledger
    from replicad.replicate.station import Station


async def flush(station: Station, follower: Follower) -> None:
    """Make everything that is committed now durable.

    Raises:
        FinalFlushFailed: some of it is not durable within `flush_timeout`.
    """
    timeout_seconds, ledger = station.settings.flush_timeout_seconds, follower.following.ledger
    try:
        async with asyncio.timeout(timeout_seconds):
            await follower.sync()
    except (TimeoutError, ReplicadError) as error:
        raise FinalFlushFailed(
            pending=pending(ledger),
            database=station.database.path,
            store=station.store.url,
            found=follower.problem
            or str(error)
            or f"not within flush_timeout, {timeout_seconds:g} s;"
            f" the last durable transaction is {ledger.durable.txid}",
        ) from error


def pending(ledger: Ledger) -> str:
    """Say what is not durable."""
    unread = f" and {ledger.unread_bytes} bytes of WAL that were not read yet" if ledger.unread_bytes else ""
    return f"{ledger.pending_transactions} transactions{unread}"
