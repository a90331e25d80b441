"""What `status` says: plain values, made at once from what is known here."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from replicad.replicate.drill import drill_status

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicad.replicate.follower import Follower
    from replicad.replicate.office import Office


_FENCING = {None: "not tried", False: "by the store", True: "advisory"}
"""By the metric `fencing_advisory`; it is tried with the first claim, which a restart on the same disk puts off."""


def instant(ms: int | None) -> str | None:
    """Return Unix milliseconds as ISO 8601, UTC; None for none."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds") if ms else None


def database_status(office: Office, *, now_ms: int) -> Mapping[str, object]:
    """Return the status of one database."""
    database = office.station.database
    head: dict[str, object] = {"name": database.name, "path": str(database.path), "replica": office.station.store.url}
    if not office.is_booted:
        return {**head, "state": "starting", **_ownership(office)}
    return {**head, **_followed(office, now_ms=now_ms)}


def _ownership(office: Office) -> Mapping[str, object]:
    return {
        "owner": office.is_booted and not office.is_gone,
        "ownership": office.standing.value,
        "epoch": office.tenure.epoch if office.is_booted else None,
        "epoch_claimed": office.is_booted and office.tenure.claimed.is_set(),
        "fencing": _FENCING[office.station.metrics.fencing_advisory],
    }


def _followed(office: Office, *, now_ms: int) -> Mapping[str, object]:
    follower = office.followed.follower
    following = follower.following
    ledger, metrics, newest = following.ledger, following.metrics, following.snapshots.newest
    return {
        "state": _state(follower),
        "problem": follower.problem,
        **_ownership(office),
        "database_id": following.lineage.database_id,
        "captured_txid": ledger.captured.txid,
        "durable_txid": ledger.durable.txid,
        "durable_at": instant(ledger.durable.ms),
        "lag_seconds": round(ledger.lag_seconds(now_ms), 3),
        "pending_transactions": ledger.pending_transactions,
        "pending_bytes": ledger.pending_bytes + ledger.unread_bytes,
        "wal_bytes": metrics.wal_bytes,
        "database_bytes": metrics.database_bytes,
        "pages": metrics.database_pages,
        "snapshot_txid": newest.txid if newest else None,
        "snapshot_at": instant(newest.created_ms) if newest else None,
        "snapshot_stored_bytes": newest.stored_bytes if newest else None,
        "window_begin": instant(metrics.window_begin_ms),
        "preserve_marks": metrics.preserve_marks,
        "store_reachable": metrics.store_reachable,
        "drill": drill_status(follower.drill.record, instant),
        "mirrors": [mirror.status(now_ms) for mirror in following.mirrors],
    }


def _state(follower: Follower) -> str:
    if not follower.capturing:
        return "waiting" if follower.problem is None else "unusable"
    return "store_unreachable" if follower.following.shipper.away else "following"
