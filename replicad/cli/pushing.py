"""One push from the command line: what is asked, carried out, and said about it."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING

from replicad.cli.output import size
from replicad.cli.progress import progress_for
from replicad.cli.replica import open_replica
from replicad.host.clock import SystemClock
from replicad.host.lockfile import LockFile
from replicad.host.machine import instance_name
from replicad.litestream.read import read_newest
from replicad.observe.events import PUSH_PROGRESSED
from replicad.plan.target import format_ms
from replicad.replicate.protocol import timing_of
from replicad.replicate.push import PushRequest, push, weigh
from replicad.restore.request import Integrity
from replicad.sqlite.still import Still
from replicad.store.open import open_store
from replicad.store.url import parse_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from replicad.cli.invocation import Invocation
    from replicad.cli.restoring import Said
    from replicad.config import DatabaseSettings, Settings
    from replicad.litestream.read import Imported
    from replicad.replicate.push import Pushed


@dataclass(frozen=True, slots=True, kw_only=True)
class PushOrder:
    """The command's own flags."""

    file: str | None
    from_litestream: str | None
    timeout: float  # seconds
    dry_run: bool


async def carry_out(invocation: Invocation, order: PushOrder) -> Said:
    """Push, or say what a push would do.

    Raises:
        ReplicadError: as `replicad.replicate.push.push`, or the source cannot be read.
    """
    settings, database = invocation.settings, invocation.only_database()
    request = PushRequest(
        database=database.name,
        instance=instance_name(os.environ),
        reason="pushed" if order.file is not None else "litestream",
        timing=replace(timing_of(settings), patience_seconds=order.timeout),
        fencing=settings.fencing,
        integrity=Integrity(settings.integrity),
        concurrency=settings.upload_concurrency,
        compression_level=settings.compression_level,
    )
    if order.file is not None:
        async with _held(Path(order.file)) as source:
            pushed = await _push(settings, database, source, request, dry_run=order.dry_run)
        return _said(database, pushed, order.file, dry_run=order.dry_run)
    url = str(parse_url(order.from_litestream or "", where="--from-litestream"))
    async with _put_together(settings, database, url) as (imported, source):
        # No checksum of Litestream's is of the whole state, so SQLite is asked at the least what it thinks of it.
        integrity = request.integrity if request.integrity is not Integrity.NONE else Integrity.QUICK
        request = replace(request, committed_ms=imported.committed_ms, integrity=integrity)
        pushed = await _push(settings, database, source, request, dry_run=order.dry_run)
    origin = f"{url} ({imported.position})"
    answer, text = _said(database, pushed, origin, dry_run=order.dry_run)
    read = {"version": imported.version, "position": imported.position, "files": imported.files}
    read |= {"fetched_bytes": imported.fetched_bytes, "unusable": list(imported.unusable)}
    lines = [f"Led around a file that is damaged or gone: {key}" for key in imported.unusable]
    return {**answer, "litestream": read}, "\n".join([text, *lines])


async def _push(
    settings: Settings, database: DatabaseSettings, source: Still, request: PushRequest, *, dry_run: bool
) -> Pushed:
    progress = progress_for(sys.stderr, database.name, doing="pushing", event=PUSH_PROGRESSED)
    async with open_replica(settings, database, concurrency=settings.upload_concurrency, only_to_read=dry_run) as store:
        return await (weigh if dry_run else push)(store, source, request, progress, SystemClock())


@asynccontextmanager
async def _held(path: Path) -> AsyncIterator[Still]:
    """Open a file, and keep a replicad on this machine from following it meanwhile."""
    lock = LockFile(Path(f"{path}-replicad.lock"))
    try:
        if await asyncio.to_thread(lock.path.exists):  # where replicad never ran, nothing is left behind
            await asyncio.to_thread(lock.acquire)
        source = await asyncio.to_thread(Still, path)
        try:
            yield source
        finally:
            await asyncio.to_thread(source.close)
    finally:
        lock.release()


@asynccontextmanager
async def _put_together(
    settings: Settings, database: DatabaseSettings, url: str
) -> AsyncIterator[tuple[Imported, Still]]:
    """Put a Litestream replica's newest state together in a temporary file, beside the database if it has a folder."""
    beside = database.path.parent
    folder = beside if await asyncio.to_thread(os.access, beside, os.W_OK | os.X_OK) else Path(gettempdir())
    work = await asyncio.to_thread(partial(TemporaryDirectory, prefix=".replicad-push-", dir=folder))
    try:
        store = await open_store(
            url, settings.store_options(concurrency=settings.upload_concurrency), only_to_read=True
        )
        try:
            path = Path(work.name) / "litestream.db"
            progress = progress_for(sys.stderr, database.name, doing="reading", event=PUSH_PROGRESSED)
            imported = await read_newest(store, path, progress)
        finally:
            await store.close()
        async with _held(path) as source:
            yield imported, source
    finally:
        await asyncio.to_thread(work.cleanup)


def _said(database: DatabaseSettings, pushed: Pushed, origin: str, *, dry_run: bool) -> Said:
    position, previous = pushed.position, pushed.previous
    at = format_ms(pushed.committed_ms)
    answer: Mapping[str, object] = {
        "pushed": not dry_run and not pushed.same,
        "reason": "dry run" if dry_run else "same state" if pushed.same else None,
        "database": database.name,
        "origin": origin,
        "txid": position.txid,
        "epoch": position.epoch,
        "committed_at": at,
        "checksum": f"{position.checksum:016x}",
        "pages": position.pages,
        "page_size": pushed.page_size,
        "previous_txid": previous.txid if previous else None,
        "same_state": pushed.same,
        "chunks": pushed.chunks,
        "chunks_sent": pushed.chunks_sent,
        "sent_bytes": pushed.sent_bytes,
        "handed_over_by": pushed.handed_over_by,
        "epoch_ended": pushed.ended,
        "seconds": round(pushed.seconds, 3),
    }
    return answer, "\n".join(_lines(database, pushed, origin, at, dry_run=dry_run))


def _lines(database: DatabaseSettings, pushed: Pushed, origin: str, at: str, *, dry_run: bool) -> list[str]:
    position, previous = pushed.position, pushed.previous
    if pushed.same:
        lines = [f"{origin} is the newest state of {database.name} already (TXID {position.txid}, committed at {at})."]
    else:
        verb = "Would push" if dry_run else "Pushed"
        behind = f"behind TXID {previous.txid}" if previous else "as the first state"
        amount = f"{size(pushed.sent_bytes)} in {pushed.chunks_sent} of {pushed.chunks} chunks"
        lines = [
            f"{verb} {origin} to {database.name}: TXID {position.txid}, {behind}, committed at {at}.",
            f"{size(position.pages * pushed.page_size)}, checksum {position.checksum:016x}; "
            + (f"{amount} would be sent." if dry_run else f"{amount} sent, {pushed.seconds:.1f} s."),
        ]
    if pushed.handed_over_by is not None:
        lines.append(f"{pushed.handed_over_by} handed over, and keeps its writers out: restart it.")
    if not dry_run and not pushed.ended:
        lines.append("The end of the epoch could not be stored: the next start waits to be sure that nobody is there.")
    return lines
