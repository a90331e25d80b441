"""Restoring the present head while its owner goes on, so that little is left to do when it has handed over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.layout import start_key
from replicad.ownership.records import decode_start
from replicad.position import Position, WALPosition
from replicad.replicate.state_file import state_of, write_state
from replicad.restore.progress import Silent
from replicad.restore.request import Integrity, Limits, RestoreRequest
from replicad.restore.restore import restore

if TYPE_CHECKING:
    from replicad.replicate.station import Station
    from replicad.restore.request import Evidence

NO_WAL = WALPosition(salts=bytes(8), frame=0, frame_checksum=bytes(8))


async def warm(station: Station) -> Evidence | None:
    """Restore into a file that is not there yet, and note beside it which state it is; return the evidence.

    Raises:
        ReplicadError: it could not be restored now; no file stands there.
    """
    settings, path = station.settings, station.database.path
    if await station.tools.threads.run(path.exists):
        return None
    limits = Limits(concurrency=settings.restore_concurrency, memory_bytes=settings.restore_memory_bytes)
    request = RestoreRequest(path=path, integrity=Integrity.NONE, limits=limits, evidence=True)
    restored = await restore(station.store, request, Silent(), station.tools.clock)
    key = start_key(restored.epoch)
    start = decode_start(await station.store.get(key), what=key)
    position = Position(epoch=restored.epoch, txid=restored.txid, checksum=restored.checksum, pages=restored.pages)
    # No claim is named: what stands there is known, and that nobody went on from it is not.
    state = state_of(position, NO_WAL, database_id=start.database_id, claim_id="")
    await station.tools.threads.run(write_state, path, state)
    return restored.evidence
