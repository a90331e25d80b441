"""One database of the daemon, from the claimed epoch to a follower that is ready to run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.replicate.boot import Boot, Booted
from replicad.replicate.follower import Follower
from replicad.replicate.following import Following
from replicad.replicate.ledger import Ledger
from replicad.replicate.ship import Shipper
from replicad.replicate.snapshots import Snapshots

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from replicad.config.model import DatabaseSettings, Settings
    from replicad.observe.metrics import DatabaseMetrics
    from replicad.replicate.own import Owned
    from replicad.replicate.state_file import StateFile
    from replicad.replicate.tools import Tools
    from replicad.store.protocol import ObjectStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """One database of the daemon."""

    settings: DatabaseSettings
    store: ObjectStore
    follower: Follower
    booted: Booted


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembly:
    """What a follower is put together from."""

    database: DatabaseSettings
    store: ObjectStore
    settings: Settings
    tools: Tools
    metrics: DatabaseMetrics
    log: FilteringBoundLogger

    async def boot(self, owned: Owned, state: StateFile | None, *, may_replace: bool) -> Followed:
        """Bring the database in place; raises what `Boot.run` raises."""
        boot = Boot(
            path=self.database.path,
            store=self.store,
            settings=self.settings,
            tools=self.tools,
            log=self.log,
            owned=owned,
            state=state,
            may_replace=may_replace,
        )
        booted = await boot.run()
        self._tell_metrics(booted)
        follower = Follower(self._following(booted), self.store, booted.stored, opened=booted.opened)
        return Followed(settings=self.database, store=self.store, follower=follower, booted=booted)

    def _tell_metrics(self, booted: Booted) -> None:
        self.metrics.epoch = booted.lineage.epoch
        self.metrics.restore_seconds = booted.restored.seconds if booted.restored else None
        self.metrics.first_restorable_ms = booted.first_restorable_ms

    def _following(self, booted: Booted) -> Following:
        ledger, clock = Ledger(), self.tools.clock
        self.metrics.lag_seconds = lambda: ledger.lag_seconds(clock.now_ms())
        shipper = Shipper(self.store, self.tools.threads, self.metrics, self.log)
        snapshots = Snapshots(
            shipper,
            booted.lineage,
            self.tools.background,
            self.metrics,
            concurrency=self.settings.upload_concurrency,
            compression_level=self.settings.compression_level,
        )
        snapshots.resume(booted.manifest)
        return Following(
            path=self.database.path,
            settings=self.settings,
            lineage=booted.lineage,
            ledger=ledger,
            shipper=shipper,
            snapshots=snapshots,
            tools=self.tools,
            metrics=self.metrics,
            log=self.log,
        )
