"""One database of the daemon, from the claimed epoch to a follower that is ready to run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.replicate.boot import Boot, Booted
from replicad.replicate.follower import Follower
from replicad.replicate.following import Following
from replicad.replicate.ledger import Ledger
from replicad.replicate.removal import Removal
from replicad.replicate.ship import Shipper
from replicad.replicate.snapshots import Snapshots

if TYPE_CHECKING:
    from replicad.replicate.boot import LocalFile
    from replicad.replicate.own import Owned
    from replicad.replicate.station import Station
    from replicad.replicate.tenure import Tenure


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """One database of the daemon, in one epoch."""

    follower: Follower
    booted: Booted


async def assemble(station: Station, owned: Owned, tenure: Tenure, local: LocalFile) -> Followed:
    """Bring the database in place, and make what follows it; raises what `Boot.run` raises."""
    boot = Boot(
        path=station.database.path,
        store=station.store,
        settings=station.settings,
        tools=station.tools,
        log=station.log,
        owned=owned,
        tenure=tenure,
        local=local,
    )
    booted = await boot.run()
    metrics = station.metrics
    metrics.epoch = booted.lineage.epoch
    metrics.restore_seconds = booted.restored.seconds if booted.restored else None
    metrics.first_restorable_ms = booted.first_restorable_ms
    metrics.orphaned_transactions = booted.orphaned_transactions
    follower = Follower(_following(station, booted, tenure), station.store, booted.stored, opened=booted.opened)
    return Followed(follower=follower, booted=booted)


def _following(station: Station, booted: Booted, tenure: Tenure) -> Following:
    ledger, clock, tools, metrics = Ledger(), station.tools.clock, station.tools, station.metrics
    metrics.lag_seconds = lambda: ledger.lag_seconds(clock.now_ms())
    shipper = Shipper(station.store, tenure, tools.threads, metrics, station.log)
    snapshots = Snapshots(
        shipper,
        booted.lineage,
        tools.background,
        metrics,
        concurrency=station.settings.upload_concurrency,
        compression_level=station.settings.compression_level,
    )
    snapshots.resume(booted.manifest)
    removal = Removal(station.store, tenure, metrics, station.log)
    removal.observers += [mirror.notes for mirror in station.mirrors]
    return Following(
        path=station.database.path,
        settings=station.settings,
        lineage=booted.lineage,
        tenure=tenure,
        ledger=ledger,
        shipper=shipper,
        snapshots=snapshots,
        removal=removal,
        tools=tools,
        metrics=metrics,
        log=station.log,
        mirrors=station.mirrors,
    )
