"""Histories made of nothing but keys: what a plan is tested on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.layout import ManifestKey, SegmentKey, end_key, start_key
from replicad.ownership.records import EpochEnd, EpochStart
from replicad.plan.line import History
from replicad.plan.listing import read_listing
from replicad.position import TXID, Epoch

if TYPE_CHECKING:
    from collections.abc import Iterable

DATABASE_ID = "0f1e2d3c"
LABEL = "memory://bucket/app.db"
MINUTE_MS = 60_000
T0_MS = 1_763_690_400_000  # 2025-11-21T02:00:00Z


def at(minutes: float) -> int:
    """Return the Unix milliseconds so many minutes behind T0."""
    return T0_MS + round(minutes * MINUTE_MS)


def segment(first: int, last: int, minutes: float, *, epoch: int = 1, size_bytes: int = 1000) -> tuple[str, int]:
    """Return the (key, size) of a segment whose last commit was so many minutes behind T0."""
    key = SegmentKey(epoch=Epoch(epoch), first=TXID(first), last=TXID(last), last_ms=at(minutes))
    return str(key), size_bytes


def snapshot(txid: int, minutes: float, *, epoch: int = 1, size_bytes: int = 500) -> tuple[str, int]:
    """Return the (key, size) of a snapshot's manifest."""
    return str(ManifestKey(epoch=Epoch(epoch), txid=TXID(txid), ms=at(minutes))), size_bytes


def start(epoch: int, parent_epoch: int = 0, parent_txid: int = 0, *, database_id: str = DATABASE_ID) -> EpochStart:
    """Return the start of an epoch."""
    return EpochStart(
        database_id=database_id,
        epoch=epoch,
        parent_epoch=parent_epoch,
        parent_txid=parent_txid,
        checksum=f"{parent_txid:016x}",
        pages=parent_txid,
        started_ms=T0_MS,
    )


def end(epoch: int, txid: int) -> EpochEnd:
    """Return the clean end of an epoch."""
    return EpochEnd(epoch=epoch, txid=txid, checksum="0" * 16, pages=1, ended_ms=T0_MS)


def history(
    objects: Iterable[tuple[str, int]], *, starts: Iterable[EpochStart] | None = None, ends: Iterable[EpochEnd] = ()
) -> History:
    """Return a history of these objects; without `starts` it has the one of epoch 1."""
    starts = [start(1)] if starts is None else list(starts)
    ends = list(ends)
    records = [(start_key(Epoch(record.epoch)), 200) for record in starts]
    records += [(end_key(Epoch(record.epoch)), 200) for record in ends]
    return History(
        label=LABEL,
        listing=read_listing([*objects, *records]),
        starts={Epoch(record.epoch): record for record in starts},
        ends={Epoch(record.epoch): record for record in ends},
    )
