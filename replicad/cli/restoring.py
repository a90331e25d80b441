"""One restore from the command line: what is asked, carried out, and said about it."""

from __future__ import annotations

import asyncio
import gc
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from replicad.cli.instant import instant_ms
from replicad.cli.output import size
from replicad.cli.progress import progress_for
from replicad.cli.replica import open_replica
from replicad.errors import NoBackup, TargetExists
from replicad.host.clock import SystemClock
from replicad.plan.line import line_of_history
from replicad.plan.target import AtTime, AtTXID, Latest, Target, format_ms
from replicad.position import TXID, Epoch
from replicad.restore.history import list_history, read_history
from replicad.restore.request import Integrity, Limits, RestoreRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Mapping

    from replicad.cli.invocation import Invocation
    from replicad.config import DatabaseSettings
    from replicad.plan.listing import Listing
    from replicad.restore.request import Estimate, Restored
    from replicad.store.protocol import ObjectStore

Said = tuple["Mapping[str, object]", str]
"""An answer as JSON-like values and as text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The command's own flags."""

    at: str | None
    txid: int | None
    epoch: int | None
    output: str | None
    force: bool
    if_missing: bool
    if_replica_exists: bool
    dry_run: bool

    @property
    def to_stdout(self) -> bool:
        """Whether the database goes to standard output."""
        return self.output == "-"


async def carry_out(invocation: Invocation, order: Order) -> Said:
    """Restore, or say what a restore would do.

    Raises:
        ReplicadError: as `replicad.restore.restore.restore`.
    """
    database = invocation.only_database()
    target = _target(order)
    path = Path(order.output) if order.output and not order.to_stdout else database.path
    if not order.to_stdout and not order.dry_run and await asyncio.to_thread(path.exists):
        if order.if_missing:
            return {"restored": False, "reason": "exists", "path": str(path)}, f"{path} exists already; nothing to do."
        if not order.force:
            raise TargetExists(path=path)
    settings = invocation.settings
    async with (
        open_replica(settings, database, concurrency=settings.restore_concurrency) as store,
        _listed_meanwhile(store) as listing,
    ):
        if order.if_replica_exists and not await _has_backup(store, listing):
            text = f"There is no backup of {database.name} in {store.url}; nothing to do."
            return {"restored": False, "reason": "no backup", "path": str(path)}, text
        from replicad.restore.restore import estimate, restore  # noqa: PLC0415

        gc.freeze()  # everything is loaded, and stays
        gc.enable()
        request = RestoreRequest(
            path=path,
            target=target,
            epoch=None if order.epoch is None else Epoch(order.epoch),
            listed=listing,
            force=order.force,
            integrity=Integrity(settings.integrity),
            limits=Limits(concurrency=settings.restore_concurrency, memory_bytes=settings.restore_memory_bytes),
        )
        if order.dry_run:
            return _said_of_estimate(database, await estimate(store, request))
        progress = progress_for(sys.stderr, database.name)
        if order.to_stdout:
            from replicad.restore.stream import restore_to_stream  # noqa: PLC0415

            found = await restore_to_stream(store, request, sys.stdout.fileno(), progress)
            return _said_of_restored(database, found, "standard output")
        return _said_of_restored(database, await restore(store, request, progress, SystemClock()), path)


@asynccontextmanager
async def _listed_meanwhile(store: ObjectStore) -> AsyncIterator[asyncio.Task[Listing]]:
    """Have the store list what there is while what restores is loaded: a third of the program."""
    listing = asyncio.create_task(list_history(store))
    try:
        await asyncio.to_thread(import_module, "replicad.restore.restore")
        yield listing
    finally:
        listing.cancel()
        await asyncio.wait([listing])
        if not listing.cancelled():
            listing.exception()  # told by whoever needed it; if nobody did, it is not worth a word


async def _has_backup(store: ObjectStore, listing: Awaitable[Listing]) -> bool:
    """Return whether anything was ever stored; a history that is there and damaged is an error, not a no."""
    try:
        line_of_history(await read_history(store, listing=listing))
    except NoBackup:
        return False
    return True


def _target(order: Order) -> Target:
    if order.txid is not None:
        return AtTXID(TXID(order.txid))
    return Latest() if order.at is None else AtTime(instant_ms(order.at, where="--at"))


def _said_of_estimate(database: DatabaseSettings, found: Estimate) -> Said:
    at = format_ms(found.commit_ms)
    answer = {
        "restored": False,
        "reason": "dry run",
        "database": database.name,
        "target": str(found.target),
        "txid": found.position.txid,
        "epoch": found.position.epoch,
        "committed_at": at,
        "database_bytes": found.database_bytes,
        "snapshot": found.snapshot,
        "segments": list(found.segments),
        "fetched_bytes": found.fetched_bytes,
        "requests": found.requests,
    }
    text = (
        f"Would restore {database.name} to {found.target}: TXID {found.position.txid}, committed at {at} "
        f"(epoch {found.position.epoch}), {size(found.database_bytes)}.\n"
        f"From {found.snapshot} and {len(found.segments)} segments: "
        f"at most {size(found.fetched_bytes)} in {found.requests} requests."
    )
    return answer, text


def _said_of_restored(database: DatabaseSettings, found: Restored, path: Path | str) -> Said:
    at = format_ms(found.commit_ms)
    answer = {
        "restored": True,
        "database": database.name,
        "path": str(path),
        "txid": found.txid,
        "epoch": found.epoch,
        "committed_at": at,
        "checksum": f"{found.checksum:016x}",
        "pages": found.pages,
        "page_size": found.page_size,
        "segments": found.segments,
        "fetched_bytes": found.fetched_bytes,
        "reused_bytes": found.reused_bytes,
        "requests": found.requests,
        "seconds": round(found.seconds, 3),
        "moved_aside": [str(aside) for aside in found.moved_aside],
        "unusable": list(found.unusable),
    }
    effort = f"{size(found.fetched_bytes)} fetched, {size(found.reused_bytes)} reused, {found.seconds:.1f} s"
    lines = [
        f"Restored {database.name} to {path}: TXID {found.txid}, committed at {at} (epoch {found.epoch}).",
        f"Proven equal to the source by checksum {found.checksum:016x} over all {found.pages} pages; {effort}.",
    ]
    lines += [f"Moved aside: {aside}" for aside in found.moved_aside]
    lines += [f"Led around an object that is damaged or gone: {key}" for key in found.unusable]
    return answer, "\n".join(lines)
