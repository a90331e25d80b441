"""What this machine knows of a replica: what was reported durable, and what waits to be sent.

Asked before the store is listed. What was durable then has to be in the listing.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from replicad.cli.control import demand
from replicad.errors import ReplicadError
from replicad.position import TXID, Epoch
from replicad.replicate.ahead import look_beside
from replicad.restore.verification.request import Ahead, Reported
from replicad.store.url import parse_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicad.config import DatabaseSettings, Settings

_ANSWER_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFacts:
    """What is known here; None: it cannot be told."""

    reported: Reported | None = None
    mirrored: Reported | None = None  # in the replica of which the store is a mirror
    ahead: Ahead | None = None


async def local_facts(settings: Settings, database: DatabaseSettings, *, store_url: str) -> LocalFacts:
    """Ask the running replicad, or look at the files beside the database when none answers.

    `store_url` is the replica's, as messages call it: what is durable in one is not yet so in a copy of it. That the
    store is a mirror, the settings tell, if anything does: it looks like the replica that it was a moment ago.
    """
    place = parse_url(database.replica)
    is_mirror = any(parse_url(mirror.url) == place for mirror in settings.mirrors)
    status = await _status(settings, database)
    if status is None:
        facts = await _beside(database)
    elif is_mirror or status.get("replica") == store_url:
        facts = _from_status(status)
    else:
        return LocalFacts()
    return replace(facts, reported=None, mirrored=facts.reported) if is_mirror else facts


async def _beside(database: DatabaseSettings) -> LocalFacts:
    beside = await asyncio.to_thread(look_beside, database.path)
    if beside is None:
        return LocalFacts()
    state = beside.state
    reported = Reported(database_id=state.database_id, epoch=Epoch(state.epoch), txid=TXID(state.txid))
    ahead = None if beside.transactions is None else Ahead(transactions=beside.transactions, bytes=beside.bytes)
    return LocalFacts(reported=reported, ahead=ahead)


async def _status(settings: Settings, database: DatabaseSettings) -> Mapping[str, object] | None:
    socket = settings.control_socket
    if socket is None or not await asyncio.to_thread(socket.exists):
        return None
    try:
        answer = await demand(socket, "/status", timeout_seconds=_ANSWER_SECONDS)
    except ReplicadError:
        return None
    listed = answer.get("databases")
    for one in listed if isinstance(listed, list) else []:
        if one.get("name") == database.name and one.get("path") == str(database.path):
            return one if isinstance(one, dict) else None
    return None


def _from_status(status: Mapping[str, object]) -> LocalFacts:
    """Whoever is not the owner, or has not claimed its epoch yet, speaks of another line than the store's."""
    if not status.get("owner") or "durable_txid" not in status:
        return LocalFacts()
    ahead = Ahead(transactions=_number(status, "pending_transactions"), bytes=_number(status, "pending_bytes"))
    if not status.get("epoch_claimed"):
        return LocalFacts(ahead=ahead)
    reported = Reported(
        database_id=str(status.get("database_id")),
        epoch=Epoch(_number(status, "epoch")),
        txid=TXID(_number(status, "durable_txid")),
    )
    return LocalFacts(reported=reported, ahead=ahead)


def _number(status: Mapping[str, object], name: str) -> int:
    value = status.get(name)
    return value if isinstance(value, int) else 0
