"""What can be told without reading pages: whether everything is there that the history is put together from.

The order of the requests is what keeps a replica that is being written to from raising a false alarm: manifests are
listed before the chunks that they name, which were stored before them. What is deleted meanwhile can still look like
a loss; so whoever finds fault looks again, and believes only what is found twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from replicad.errors import Damaged, ObjectMissing
from replicad.layout import ObjectKind, claim_key, end_key, kind_of, log_begin
from replicad.ownership.records import decode_end
from replicad.plan.damage import Stretch, gaps
from replicad.plan.line import line_of_history
from replicad.position import TXID, Epoch
from replicad.restore.history import read_history
from replicad.restore.together import gather_bounded
from replicad.restore.verification.faults import OF_ONE_OBJECT, Faults, RawFault, brief, fault_of
from replicad.restore.verification.request import Fault
from replicad.restore.verify_object import check_body

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

    from replicad.ownership.records import EpochEnd, EpochStart
    from replicad.plan.line import History, Line
    from replicad.restore.fetch import Fetch
    from replicad.restore.verification.inventory import Inventory
    from replicad.restore.verification.request import Reported
    from replicad.snapshot import Manifest
    from replicad.store.protocol import ObjectStore

_ROWS = 1_000
_AT_ONCE = 4  # manifests that are held at a time
NO_SUSPECTS: frozenset[str] = frozenset()


@dataclass(slots=True, kw_only=True)
class Look:
    """What one look at the listing tells."""

    line: Line | None = None
    starts: Mapping[Epoch, EpochStart] = field(default_factory=dict)
    ends: dict[Epoch, EpochEnd] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)
    users: dict[str, list[str]] = field(default_factory=dict)  # of a chunk that cannot be used: manifests on the line


class Lister:
    """Looks at one database's listing.

    Args:
        store: the database's own part of the store.
        fetch: reads documents from it.
        inventory: is filled with all that is listed.
        promised_ms: from when on every instant was promised (Unix ms); None: from the first stored one on.
        reported: what was reported durable before the first look.
    """

    def __init__(
        self,
        store: ObjectStore,
        fetch: Fetch,
        inventory: Inventory,
        *,
        promised_ms: int | None,
        reported: Reported | None,
    ) -> None:
        self._store = store
        self._fetch = fetch
        self._inventory = inventory
        self._promised_ms = promised_ms
        self._reported = reported

    async def look(self, suspects: AbstractSet[str] = NO_SUSPECTS) -> Look:
        """Look once.

        Args:
            suspects: chunks that are known to be unusable, though they are listed as they should be.

        Raises:
            NoBackup: nothing was ever stored.
            NewerFormat: something was written by a later replicad.
            ReplicadError: the store failed.
        """
        look = Look()
        history = await self._read_history(look)
        if history is not None:
            look.starts = history.starts
            look.ends |= history.ends
            try:
                look.line = line_of_history(history)
            except Damaged as error:
                look.faults.add(_fault_of_start(error))
        await self._take_inventory()
        if history is not None and look.line is not None:
            self._look_at_gaps(look, look.line)
            await self._look_at_records(look, look.line, history)
            await self._look_at_manifests(look, look.line, suspects)
        return look

    async def _read_history(self, look: Look) -> History | None:
        try:
            return await read_history(self._store)
        except (Damaged, ObjectMissing) as error:
            key = str(error.details["key" if isinstance(error, ObjectMissing) else "what"])
            look.faults.add(fault_of(key, kind_of(key), error))
            return None

    async def _take_inventory(self) -> None:
        run, inventory = self._fetch.threads.run, self._inventory
        await run(inventory.clear)
        rows: list[tuple[str, int]] = []
        async for found in self._store.list(""):
            rows.append((found.key, found.size_bytes))
            if len(rows) >= _ROWS:
                await run(inventory.add, rows)
                rows = []
        await run(inventory.add, rows)

    def _look_at_gaps(self, look: Look, line: Line) -> None:
        for gap in gaps(line, promised_ms=self._promised_ms):
            look.faults.add(_fault_of_gap(line, gap, "no object that is left leads to it"))
        reported = self._reported
        if reported is None or (reported.database_id, reported.epoch) != (line.database_id, line.head):
            return  # another instance owns the database by now: what it went on from is the line
        if reported.txid > line.last_txid:
            gap = Stretch(first=TXID(line.last_txid + 1), last=reported.txid)
            look.faults.add(_fault_of_gap(line, gap, "it was reported durable, and no object holds it"))

    async def _look_at_records(self, look: Look, line: Line, history: History) -> None:
        """Hold what ends and begins epochs against one another."""
        if line.head not in history.listing.claims:
            problem = "it is not in the store: an instance that starts may take the epoch for free"
            key = claim_key(line.head)
            look.faults.add(RawFault(key=key, kind=ObjectKind.CLAIM, fault=Fault.MISSING, problem=problem))
        children = {part.start.parent_epoch: part.start for part in line.epochs}
        for epoch in (part.epoch for part in line.epochs if part.epoch in history.listing.ends):
            key = end_key(epoch)
            try:
                end = look.ends.get(epoch)
                if end is None:
                    end = await self._fetch.proven(key, partial(decode_end, what=key))
                check_succession(end, children.get(epoch), what=key)
            except OF_ONE_OBJECT as error:
                look.faults.add(fault_of(key, ObjectKind.END, error))
            else:
                look.ends[epoch] = end

    async def _look_at_manifests(self, look: Look, line: Line, suspects: AbstractSet[str]) -> None:
        for begin in range(0, len(line.manifests), _AT_ONCE):
            part = line.manifests[begin : begin + _AT_ONCE]
            reading = (partial(self._manifest, found.name, line.database_id) for found in part)
            for found, manifest in zip(part, await gather_bounded(reading, _AT_ONCE), strict=True):
                if isinstance(manifest, RawFault):
                    look.faults.add(manifest)
                else:
                    await self._look_at_chunks(look, found.name, manifest, suspects)

    async def _manifest(self, name: str, database_id: str) -> Manifest | RawFault:
        try:
            return await self._fetch.proven(name, partial(_decode, name, database_id))
        except OF_ONE_OBJECT as error:
            return fault_of(name, ObjectKind.MANIFEST, error)

    async def _look_at_chunks(self, look: Look, name: str, manifest: Manifest, suspects: AbstractSet[str]) -> None:
        listed = await self._fetch.threads.run(self._inventory.sizes, list({chunk.key for chunk in manifest.chunks}))
        for chunk in {chunk.key: chunk for chunk in manifest.chunks}.values():
            fault = _fault_of_chunk(chunk.key, chunk.stored_bytes, listed.get(chunk.key))
            if fault is not None:
                look.faults.add(fault)
            if fault is not None or chunk.key in suspects:
                look.users.setdefault(chunk.key, []).append(name)


def check_succession(end: EpochEnd, child: EpochStart | None, *, what: str) -> None:
    """Refuse an end that the epoch which continues from it contradicts.

    One that continues from before the end leaves an orphaned tail, which is no damage.

    Raises:
        Damaged: it does.
    """
    if child is None or child.parent_txid < end.txid:
        return
    if child.position != end.position:
        raise Damaged(
            what=what,
            where=f"state that epoch {child.epoch} continues from",
            expected=f"TXID {child.parent_txid}, checksum {child.checksum}, {child.pages} pages",
            found=f"TXID {end.txid}, checksum {end.checksum}, {end.pages} pages",
        )


def _decode(name: str, database_id: str, body: bytes) -> Manifest:
    manifest = check_body(name, body, database_id=database_id).manifest
    if manifest is None:
        raise AssertionError(name)
    return manifest


def _fault_of_start(error: Damaged) -> RawFault:
    """Return the fault of a start that the line needs; the error says when there is none at all."""
    key = str(error.details["what"])
    missing = error.details["found"] == "no object" or error.details["where"] == "listing"
    fault = Fault.MISSING if missing else Fault.DAMAGED
    return RawFault(key=key, kind=ObjectKind.START, fault=fault, problem=brief(error))


def _fault_of_gap(line: Line, gap: Stretch, problem: str) -> RawFault:
    epoch = next(
        (part.epoch for part in line.epochs if part.until is None or gap.first <= part.until), line.epochs[-1].epoch
    )
    key = f"{log_begin(epoch, gap.first)}-"
    return RawFault(key=key, kind=ObjectKind.SEGMENT, fault=Fault.MISSING, problem=problem, gap=gap)


def _fault_of_chunk(key: str, stored_bytes: int, listed_bytes: int | None) -> RawFault | None:
    if listed_bytes is None:
        problem = "it is not in the store, and a snapshot lists it"
        return RawFault(key=key, kind=ObjectKind.CHUNK, fault=Fault.MISSING, problem=problem)
    if listed_bytes != stored_bytes:
        problem = f"size: expected {stored_bytes} bytes, as a snapshot lists it, found {listed_bytes}"
        return RawFault(key=key, kind=ObjectKind.CHUNK, fault=Fault.DAMAGED, problem=problem)
    return None
