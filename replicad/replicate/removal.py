"""Deleting stored objects of a database: the one way in which its owner does.

Whatever has to know of it (a mirror, say) observes here. Nothing is deleted before a look that this instance still owns
the database, and nobody waits for it: a deletion that fails is planned again.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Protocol

from replicad.errors import NotReady, OwnedByAnother
from replicad.observe import events

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from structlog.typing import FilteringBoundLogger

    from replicad.observe.metrics import DatabaseMetrics
    from replicad.plan.listing import SegmentObject
    from replicad.plan.retention import Verdict
    from replicad.store.protocol import ObjectStore

BATCH_OBJECTS = 1_000  # what S3 deletes with one request


class Ownership(Protocol):
    """Whether this instance may delete: see `Tenure`."""

    retiring: bool
    """Another instance is let go on."""

    async def may_delete(self) -> bool:
        """Look; False when another one owns, or is about to."""
        ...


class Observer(Protocol):
    """Whoever has to know what was deleted; must return at once."""

    def on_removed(self, keys: Sequence[str]) -> None:
        """Take note that objects went, which nothing that is kept needs."""

    def on_replaced(self, rollup: SegmentObject) -> None:
        """Take note that objects went whose transactions a roll-up holds."""

    def on_marks(self, keys: Iterable[str]) -> None:
        """Take note of the preserve marks that there are now: others than the owner make and take them too."""


class Removal:
    """Deletes objects of one database, and says so. Lives on the event loop.

    Args:
        store: the database's own part of the store.
        ownership: asked before every batch.
        metrics: counts objects and bytes by reason.
        log: of this database.
    """

    def __init__(
        self, store: ObjectStore, ownership: Ownership, metrics: DatabaseMetrics, log: FilteringBoundLogger
    ) -> None:
        self.observers: list[Observer] = []
        self._store = store
        self._ownership = ownership
        self._metrics = metrics
        self._log = log

    async def remove(self, verdicts: Sequence[Verdict]) -> None:
        """Delete objects, in batches; safe to be cancelled, and to be called again with the same.

        Raises:
            NotReady: the database is being handed over.
            OwnedByAnother: another instance owns the database by now; what was not deleted is its to judge.
            StoreUnreachable: some may be deleted.
            StoreRefused: the credentials do not allow it, or the objects are locked.
        """
        for first in range(0, len(verdicts), BATCH_OBJECTS):
            batch = verdicts[first : first + BATCH_OBJECTS]
            if not await self._ownership.may_delete():
                if self._ownership.retiring:
                    raise handing_over()
                raise OwnedByAnother(
                    database=self._store.url, found="a later claim", hint="Only the owner deletes; nothing was."
                )
            await self._store.delete([verdict.key for verdict in batch])
            self._note(batch)

    async def remove_replaced(self, rollup: SegmentObject, keys: Sequence[str]) -> bool:
        """Delete objects whose transactions a roll-up holds; return False when this instance may not.

        Raises:
            StoreUnreachable, StoreRefused: some may be deleted.
        """
        if not await self._ownership.may_delete():
            return False
        await self._store.delete(keys)
        self._metrics.rolled_up_deleted += len(keys)
        self._log.info(events.ROLLED_UP_DELETED, rollup=rollup.name, objects=len(keys), first=min(keys))
        for observer in self.observers:
            observer.on_replaced(rollup)
        return True

    def tell_marks(self, keys: Iterable[str]) -> None:
        """Tell observers which preserve marks there are."""
        for observer in self.observers:
            observer.on_marks(keys)

    def _note(self, batch: Sequence[Verdict]) -> None:
        for verdict in batch:
            self._metrics.deleted_objects[verdict.reason] += 1
            self._metrics.deleted_bytes[verdict.reason] += verdict.size_bytes
            self._log.debug(events.OBJECT_DELETED, key=verdict.key, reason=verdict.reason)
        self._log.info(
            events.OBJECTS_DELETED,
            objects=len(batch),
            size_bytes=sum(verdict.size_bytes for verdict in batch),
            reasons=dict(Counter(f"{verdict.kind}: {verdict.reason}" for verdict in batch)),
        )
        keys = [verdict.key for verdict in batch]
        for observer in self.observers:
            observer.on_removed(keys)


def handing_over() -> NotReady:
    """Return the error for what only an owner does that stays one."""
    found = "the database is being handed over"
    return NotReady(what="retention", timeout_seconds=0.0, found=found, hint="The next owner does it.")
