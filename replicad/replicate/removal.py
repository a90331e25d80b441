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
    from collections.abc import Callable, Sequence

    from structlog.typing import FilteringBoundLogger

    from replicad.observe.metrics import DatabaseMetrics
    from replicad.plan.retention import Verdict
    from replicad.store.protocol import ObjectStore

BATCH_OBJECTS = 1_000  # what S3 deletes with one request


class Ownership(Protocol):
    """Whether this instance may delete: see `Tenure`."""

    retiring: bool
    """Another instance is let go on: its claim, which is to come, is none to be surprised by."""

    async def still_owned(self) -> bool:
        """Look; False, for ever, once another one owns."""
        ...


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
        self.observers: list[Callable[[Sequence[Verdict]], None]] = []  # told what was deleted; must return at once
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
            if self._ownership.retiring:
                raise handing_over()
            if not await self._ownership.still_owned():
                raise OwnedByAnother(
                    database=self._store.url, found="a later claim", hint="Only the owner deletes; nothing was."
                )
            await self._store.delete([verdict.key for verdict in batch])
            self._note(batch)

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
        for observer in self.observers:
            observer(batch)


def handing_over() -> NotReady:
    """Return the error for what only an owner does that stays one."""
    found = "the database is being handed over"
    return NotReady(what="retention", timeout_seconds=0.0, found=found, hint="The next owner does it.")
