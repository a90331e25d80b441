"""All mirrors of a process: one store for each place, opened when it is first needed, shared by the databases."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from replicad.mirror.side import Side
from replicad.replicate.mirror import Mirror
from replicad.replicate.notes import Notes
from replicad.store.database import stored_objects
from replicad.store.open import open_store

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from replicad.config.model import MirrorSettings, Settings
    from replicad.observe.metrics import Metrics
    from replicad.replicate.tools import Tools
    from replicad.store.protocol import ObjectStore

_RETRY_SECONDS = 10.0  # of one request: the mirror itself is tried again for ever
_CONCURRENCY = 8


class Mirrors:
    """The places that the settings name."""

    def __init__(self, settings: Settings, tools: Tools, metrics: Metrics) -> None:
        self._settings = settings
        self._tools = tools
        self._metrics = metrics
        self._stores: dict[str, ObjectStore] = {}
        self._opening = asyncio.Lock()

    def of(self, name: str, source: Side, log: FilteringBoundLogger) -> tuple[Mirror, ...]:
        """Return the mirrors of one database; `source` is its own part of its replica."""
        return tuple(self._mirror(name, place, source, log) for place in self._settings.mirrors)

    async def close(self) -> None:
        """Close every store that was opened."""
        for store in self._stores.values():
            await store.close()

    def _mirror(self, name: str, place: MirrorSettings, source: Side, log: FilteringBoundLogger) -> Mirror:
        sides: list[Side] = []  # one, when it was opened: it remembers the keyring

        async def open_there() -> Side:
            if not sides:
                sides.append(Side.of(stored_objects(await self._open(place), name), self._settings.encryption_keys))
            return sides[0]

        return Mirror(
            place.label,
            source,
            open_there,
            Notes(self._tools.clock.now_ms),
            threads=self._tools.background,
            clock=self._tools.clock,
            metrics=self._metrics.for_database(name),
            log=log,
        )

    async def _open(self, place: MirrorSettings) -> ObjectStore:
        async with self._opening:
            if place.url not in self._stores:
                options = place.store_options(self._settings.store_options(concurrency=_CONCURRENCY))
                options = replace(options, retry_seconds=min(_RETRY_SECONDS, options.retry_seconds))
                observer = self._metrics.for_mirror(place.label)
                self._stores[place.url] = await open_store(place.url, options, observer=observer)
            return self._stores[place.url]
