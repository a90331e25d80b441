"""One mirror of one database: a second place that repeats what is done in the first, never ahead and never in the way.

At the start both places are listed, and what is missing is copied. From then on the mirror repeats what is stored, in
the order in which it was stored, a segment only when it is durable: so whatever it is broken off at, the replica itself
looked like that once, and can be restored from. While it is away, notes of what to do wait here; when there are too
many of them, both places are listed again.

What the owner deletes by plan is deleted in the mirror too, if what it was replaced by is there. What somebody else
deleted in the replica is not: that is what a mirror is for.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Protocol

from replicad.errors import Damaged, NoBackup, ObjectMissing, OtherHistory, ReplicadError
from replicad.layout import claim_key, epoch_of, parse_chunk, parse_manifest, parse_segment
from replicad.mirror.copying import CopyOptions, copy_replica
from replicad.mirror.deleting import delete_replaced, refuse_if_gone_on
from replicad.mirror.difference import is_there
from replicad.mirror.marks import align_marks
from replicad.mirror.sameness import refuse_others_claims
from replicad.mirror.sending import Sender
from replicad.observe import events
from replicad.replicate.notes import Deleted, Marked, Replaced, Stored
from replicad.restore.together import apart, gather_bounded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from structlog.typing import FilteringBoundLogger

    from replicad.host.clock import Clock
    from replicad.host.threads import Threads
    from replicad.mirror.side import Side
    from replicad.observe.metrics import DatabaseMetrics
    from replicad.position import TXID, Epoch
    from replicad.replicate.notes import Notes

_CONCURRENCY = 2  # objects of up to 8 MiB in memory, beside all else that the daemon does
_DELETIONS = 1_000  # in one request
_FIRST_WAIT_SECONDS = 1.0
_LONGEST_WAIT_SECONDS = 60.0


class Leave(Protocol):
    """What the owner of the database knows: see `MirrorDuty`."""

    async def until_durable(self, txid: TXID) -> None:
        """Wait until a transaction is durable in the replica."""

    async def may_delete(self) -> bool:
        """Look whether the database is still ours."""


class Mirror:
    """Lives on the event loop, as long as the process; one thing at a time is done to it."""

    def __init__(  # noqa: PLR0913 - one of each
        self,
        label: str,
        source: Side,
        open_there: Callable[[], Awaitable[Side]],
        notes: Notes,
        *,
        threads: Threads,
        clock: Clock,
        metrics: DatabaseMetrics,
        log: FilteringBoundLogger,
    ) -> None:
        """`open_there` may be called again and again: it opens the mirror's store when it is not open yet."""
        self.label = label
        self.notes = notes
        self.problem: str | None = None  # why nothing is copied now
        self._source = source
        self._open_there = open_there
        self._threads = threads
        self._clock = clock
        self._metrics = metrics
        self._log = log.bind(mirror=label)
        self._listed = False  # both places were compared, and every note since is here or done
        self._sender: Sender | None = None  # it knows which keys the mirror's keyring names
        self._damaged: set[str] = set()  # in the replica, and so not in the mirror: keys
        self._claims: set[Epoch] = set()  # of which the claim is known to be there
        self._unsure = 0  # notes up to this one may be of objects that the last comparison copied already
        self._refused_at: int | None = None  # when it was found to hold another history: the count of the notes
        self._began_ms = clock.now_ms()
        metrics.mirror_lag_seconds[label] = lambda: self.lag_seconds(clock.now_ms())
        metrics.mirror_txid[label] = 0
        metrics.mirror_failing[label] = False

    def lag_seconds(self, now_ms: int) -> float:
        """Return the age of the oldest thing in the replica that is not known to be in the mirror, 0 when all is."""
        since_ms = self.notes.since_ms if self._listed else self._began_ms
        return 0.0 if since_ms is None else max(0, now_ms - since_ms) / 1000

    def status(self, now_ms: int) -> Mapping[str, object]:
        """Return what `status` says of it."""
        state = "failing" if self.problem else "copying" if not self._listed else "behind" if self.notes else "complete"
        return {
            "mirror": self.label,
            "state": state,
            "problem": self.problem,
            "copied_txid": self._metrics.mirror_txid[self.label],
            "lag_seconds": round(self.lag_seconds(now_ms), 3),
            "waiting": len(self.notes),
        }

    async def keep(self, leave: Leave) -> None:
        """Keep it up to date until cancelled. Fails never: what fails is tried again, and said once."""
        wait_seconds = _FIRST_WAIT_SECONDS
        while True:
            if self._listed:
                await self.notes.until_any()
            elif self._refused_at is not None:  # asking again costs requests, and is of use only to who has new ones
                await self.notes.until_more(self._refused_at)
            try:
                await apart(self.catch_up(leave))
            except ReplicadError as error:
                self._note_failure(error)
                await asyncio.sleep(wait_seconds)
                wait_seconds = min(_LONGEST_WAIT_SECONDS, 2 * wait_seconds)
            else:
                wait_seconds = _FIRST_WAIT_SECONDS

    async def finish(self, leave: Leave, *, timeout_seconds: float) -> None:
        """Catch up at the end, for so long; say what is missing then."""
        found = f"not within mirror_timeout, {timeout_seconds:g} s"
        try:
            async with asyncio.timeout(timeout_seconds):
                await self.catch_up(leave)
        except ReplicadError as error:
            found = str(error)
        except TimeoutError:
            pass
        else:
            return
        self._log.warning(
            events.MIRROR_BEHIND,
            copied_txid=self._metrics.mirror_txid[self.label],
            waiting=len(self.notes) if self._listed else None,
            lag_seconds=round(self.lag_seconds(self._clock.now_ms()), 3),
            error=found,
        )

    async def catch_up(self, leave: Leave) -> None:
        """Bring it up to what the replica holds; safe to break off anywhere.

        Raises:
            OtherHistory: the mirror holds something else.
            ReplicadError: one of the two stores failed.
        """
        there = await self._open_there()
        if self._sender is None or self._sender.destination is not there:
            self._sender = Sender(self._source, there, self._threads, concurrency=_CONCURRENCY)
        sender = self._sender
        while True:
            if not (self._listed and self.notes.complete):
                await self._compare(there)
            note = self.notes.first()
            if note is None:
                break
            if isinstance(note, Stored):
                await self._repeat(sender, there, note, leave)
            elif isinstance(note, Marked):
                await self._align_marks(sender, there, leave)
            else:
                await self._repeat_deletions(there, note, leave)
        self._note_success()

    # --- by listing --------------------------------------------------------------------------------

    async def _compare(self, there: Side) -> None:
        if self._listed:
            self._listed, self._began_ms = False, self.notes.since_ms or self._clock.now_ms()
        before = self.notes.count
        self.notes.begin()
        options = CopyOptions(concurrency=_CONCURRENCY)
        try:
            copied = await copy_replica(self._source, there, self._threads, options=options)
        except NoBackup:  # nothing was stored yet: whatever will be is noted
            await refuse_others_claims(self._source, there)
        else:
            self._count(copied.sent, copied.sent_bytes, copied.last_txid)
            self._damaged.clear()
            for key in copied.damaged:
                self._say_damaged(key)
            if copied.sent:
                self._log.info(
                    events.MIRROR_CAUGHT_UP,
                    txid=copied.last_txid,
                    objects=copied.sent,
                    sent_bytes=copied.sent_bytes,
                )
        self._listed, self._unsure = True, self.notes.count
        self.notes.done_by_listing(before)

    # --- by notes ----------------------------------------------------------------------------------

    async def _repeat(self, sender: Sender, there: Side, note: Stored, leave: Leave) -> None:
        notes = [note]
        if parse_chunk(note.key) is not None:
            notes = self.notes.alike(_CONCURRENCY, part="/chunks/")  # the manifest that lists them comes behind them
        await self._have_claim(sender, note)
        segment = parse_segment(note.key)
        if segment is not None:
            await leave.until_durable(segment.last)
        await gather_bounded((partial(self._send, sender, there, each) for each in notes), _CONCURRENCY)
        self.notes.done(len(notes))

    async def _send(self, sender: Sender, there: Side, note: Stored) -> None:
        if note.number <= self._unsure and await is_there(there.stored, note.key, note.size_bytes):
            return
        try:
            await sender.send(note.key, note.size_bytes)
        except ObjectMissing:  # deleted since: by plan, as a later note says, or by somebody, which a snapshot heals
            return
        except Damaged:
            self._say_damaged(note.key)
            return
        self._damaged.discard(note.key)
        segment, manifest = parse_segment(note.key), parse_manifest(note.key)
        self._count(1, note.size_bytes, segment.last if segment else manifest.txid if manifest else 0)

    async def _have_claim(self, sender: Sender, note: Stored) -> None:
        """See to it that the claim of an epoch is there before anything else of it: its own note may never come."""
        epoch = epoch_of(note.key)
        if epoch is None or epoch in self._claims:
            return
        key = claim_key(epoch)
        try:
            await sender.send(key, len(await self._source.stored.get(key)))
        except ObjectMissing:  # somebody deleted it
            return
        self._claims.add(epoch)

    async def _repeat_deletions(self, there: Side, note: Deleted | Replaced, leave: Leave) -> None:
        """Delete in the mirror what was deleted by plan, unless somebody else goes on with the mirror."""
        several = [note] if isinstance(note, Replaced) else self.notes.deletions(_DELETIONS)
        if await leave.may_delete():
            await refuse_if_gone_on(self._source, there)
            if isinstance(note, Replaced):
                if await delete_replaced(there, note.rollup, self._threads) is None:
                    self._hold_back(1, f"{note.rollup.name} is not in the mirror")
            else:
                await self._delete(there, [one.key for one in several if isinstance(one, Deleted)])
        self.notes.done(len(several))

    async def _align_marks(self, sender: Sender, there: Side, leave: Leave) -> None:
        """Have the mirror's preserve marks be those of the replica."""
        if may_delete := await leave.may_delete():
            await refuse_if_gone_on(self._source, there)
        try:
            await align_marks(self._source, there, sender, may_delete=may_delete)
        except Damaged as error:
            self._say_damaged(str(error.details["what"]))
        self.notes.done()

    async def _delete(self, there: Side, keys: list[str]) -> None:
        """Delete what retention let go, unless what it kept for it is not whole in the mirror."""
        self._damaged.difference_update(keys)
        if self._damaged:
            self._hold_back(len(keys), f"{min(self._damaged)} is damaged in the replica, and not in the mirror")
        else:
            await there.stored.delete(keys)

    # --- saying so ---------------------------------------------------------------------------------

    def _count(self, objects: int, sent_bytes: int, txid: int) -> None:
        metrics = self._metrics
        metrics.mirror_objects[self.label] += objects
        metrics.mirror_bytes[self.label] += sent_bytes
        metrics.mirror_txid[self.label] = max(metrics.mirror_txid[self.label], txid)

    def _hold_back(self, objects: int, found: str) -> None:
        self._log.warning(events.MIRROR_DELETION_HELD_BACK, objects=objects, found=found)

    def _say_damaged(self, key: str) -> None:
        self._damaged.add(key)
        self._metrics.mirror_errors[self.label] += 1
        self._log.error(events.OBJECT_DAMAGED, key=key)

    def _note_failure(self, error: ReplicadError) -> None:
        self._metrics.mirror_errors[self.label] += 1
        self._metrics.mirror_failing[self.label] = True
        if self.problem is None:
            self._log.error(events.MIRROR_FAILED, kind=type(error).__name__, error=str(error))
        self.problem = str(error)
        self._refused_at = None
        if isinstance(error, OtherHistory):
            self._listed, self._refused_at = False, self.notes.count

    def _note_success(self) -> None:
        self._metrics.mirror_failing[self.label] = False
        self._refused_at = None
        if self.problem is not None:
            self.problem = None
            self._log.info(events.MIRROR_RECOVERED, txid=self._metrics.mirror_txid[self.label])
