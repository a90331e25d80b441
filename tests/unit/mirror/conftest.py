"""A replica of three epochs with all kinds of objects in it, and a destination."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from replicad.host.threads import Threads
from replicad.layout import claim_key, handover_key
from replicad.mirror.copying import Copied, CopyOptions, copy_replica
from replicad.mirror.side import Side
from replicad.ownership.records import Claim, encode_record
from replicad.plan.copying import is_history
from replicad.position import Epoch
from replicad.store.memory import MemoryStore
from tests.support.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from replicad.store.protocol import ObjectStore


async def put_claim(store: ObjectStore, epoch: int, *, id: str = "ours") -> None:  # noqa: A002 - a field's name
    """Store a claim."""
    claim = Claim(id=id, epoch=epoch, claimed_ms=1, instance="test")
    await store.put(claim_key(Epoch(epoch)), encode_record(claim))


async def objects(store: ObjectStore) -> dict[str, bytes]:
    """Return all that is stored."""
    return {found.key: await store.get(found.key) async for found in store.list("")}


async def history_of(store: ObjectStore) -> dict[str, bytes]:
    """Return all that a copy has to have."""
    return {key: body for key, body in (await objects(store)).items() if is_history(key)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """What is stored, and the recorders that know every state of it."""

    store: MemoryStore
    first: Recorder  # epoch 1, transactions 1 to 8, of which 8 is beside the line
    third: Recorder  # epoch 3, which goes on behind 7
    threads: Threads

    @property
    def states(self) -> dict[int, bytes]:
        """The database after each transaction of the line."""
        line = {txid: found.database for txid, found in self.first.transactions.items() if txid <= 7}
        return line | {txid: found.database for txid, found in self.third.transactions.items()}

    async def copy(self, destination: ObjectStore, **options: bool | int) -> Copied:
        """Copy it."""
        chosen = CopyOptions(**options)  # type: ignore[arg-type]  # by name
        return await copy_replica(Side.plain(self.store), Side.plain(destination), self.threads, options=chosen)


@pytest.fixture
async def threads() -> AsyncIterator[Threads]:
    """Return threads for hashing."""
    found = Threads("copy", 2)
    yield found
    await found.close()


@pytest.fixture
def recorders(tmp_path: Path) -> Iterator[tuple[Recorder, Recorder]]:
    """Return the databases."""
    for name in ("first", "third"):
        (tmp_path / name).mkdir()
    with Recorder(path=tmp_path / "first" / "app.db") as first:
        for rows in (50, 10, 1, 1, 30, 1, 1):
            first.fill(rows)
        with first.fork(tmp_path / "third" / "app.db", 7, epoch=3) as third:
            for rows in (2, 3, 40, 1):
                third.fill(rows)
            yield first, third


@pytest.fixture
async def replica(recorders: tuple[Recorder, Recorder], threads: Threads) -> Replica:
    """Return a replica: two snapshots, an orphaned tail, a claim without a start, a roll-up, a note, a foreign key."""
    store, (first, third) = MemoryStore("source"), recorders
    await fill(store, first, third)
    return Replica(store=store, first=first, third=third, threads=threads)


async def fill(store: ObjectStore, first: Recorder, third: Recorder) -> None:
    """Store two snapshots, an orphaned tail, a claim without a start, a roll-up, a note, a foreign key."""
    for epoch in (1, 2, 3):
        await put_claim(store, epoch)
    await first.start(store)
    await first.snapshot(store, 1)
    for number in range(2, 9):
        await first.segment(store, number)
    await first.segment(store, 2, 6)
    await first.end(store, 7)
    await third.start(store, parent=1, txid=7)
    await third.segment(store, 8, 9)
    await third.snapshot(store, 9)
    await third.segment(store, 10)
    await third.segment(store, 11)
    await store.put(handover_key(Epoch(4)), b"{}")
    await store.put("README", b"not ours")
