"""`replicad status`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from replicad.cli.control import demand
from replicad.cli.flags import command
from replicad.cli.output import outline
from replicad.config import Section
from replicad.errors import DaemonUnreachable, NoBackup

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicad.cli.invocation import Invocation
    from replicad.config import DatabaseSettings, Settings

_CONCURRENCY = 8


@command(
    settings=(Section.REPLICA, "control_socket", Section.STORE, "log_level", "log_format"),
    examples=("replicad status", "replicad status --json | jq '.databases[].lag_seconds'"),
    required=(),
)
def status(invocation: Invocation) -> None:
    """Show what the running replicad does, or what the store holds.

    Asks the control socket: each database's state, captured and durable TXID, lag, pending bytes, snapshots. When no
    replicad answers there, it lists the store instead, and says so.
    """
    invocation.start_logging(answers_itself=True)
    answer = asyncio.run(_status(invocation))
    invocation.answer(answer, outline(answer))


async def _status(invocation: Invocation) -> Mapping[str, object]:
    settings = invocation.settings
    socket = invocation.control_socket()
    try:
        return {"source": "running replicad"} | dict(await demand(socket, "/status"))
    except DaemonUnreachable as error:
        if not settings.databases or not all(database.replica for database in settings.databases):
            raise
        return {
            "source": "store",
            "note": f"No running replicad answers at {socket} ({error.details['found']}); this is from the store.",
            "databases": [await _stored(settings, database) for database in settings.databases],
        }


async def _stored(settings: Settings, database: DatabaseSettings) -> Mapping[str, object]:
    # Imported here: a status of the running replicad needs neither store nor history.
    from replicad.cli.replica import open_replica, summary  # noqa: PLC0415
    from replicad.plan.line import line_of_history  # noqa: PLC0415
    from replicad.restore.history import read_history  # noqa: PLC0415

    async with open_replica(settings, database, concurrency=_CONCURRENCY) as store:
        head: dict[str, object] = {"name": database.name, "path": str(database.path), "replica": store.url}
        try:
            history = await read_history(store)
            line = line_of_history(history)
        except NoBackup:
            return head | {"state": "no backup"}
        state = "stopped in order" if line.head in history.listing.ends else "not stopped in order, or still running"
        return head | {"state": state} | dict(summary(line))
