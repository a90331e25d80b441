"""One database of the daemon, where its objects go, and what works on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from replicad.config.model import DatabaseSettings, Settings
    from replicad.observe.metrics import DatabaseMetrics
    from replicad.replicate.mirror import Mirror
    from replicad.replicate.tools import Tools
    from replicad.store.protocol import ObjectStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """What stays the same while the process runs, whoever owns the database."""

    database: DatabaseSettings
    store: ObjectStore
    settings: Settings
    tools: Tools
    metrics: DatabaseMetrics
    log: FilteringBoundLogger
    mirrors: tuple[Mirror, ...] = ()
