"""A stored history with two ways to each of its later transactions, and what verifies it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from replicad import layout
from replicad.layout import claim_key
from replicad.ownership.records import Claim, encode_record
from replicad.position import Epoch
from replicad.restore.request import Limits
from replicad.restore.verification.request import Exercise, Level, VerifyReport, VerifyRequest
from replicad.restore.verification.verify import Verification
from replicad.store.memory import MemoryStore
from tests.support.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from replicad.store.protocol import ObjectStore


@dataclass
class Replica:
    """Seven transactions: snapshots at 1 and 5, single segments for 2 to 7, one that holds 2 to 4 as well, an end."""

    recorder: Recorder
    store: MemoryStore
    folder: Path
    keys: dict[str, str] = field(default_factory=dict)

    async def verify(
        self,
        level: Level = Level.LISTING,
        store: ObjectStore | None = None,
        **asked: Any,  # noqa: ANN401 - what a request takes
    ) -> VerifyReport:
        """Verify it."""
        exercise = Exercise(folder=self.folder / "drill", name="app.db", assertions=asked.pop("assertions", ()))
        request = VerifyRequest(level=level, exercise=exercise, limits=Limits(concurrency=4, threads=2), **asked)
        return await Verification(store or self.store, request).run()

    def body(self, name: str) -> bytes:
        """Return an object by its name in the test."""
        return self.store._objects[self.keys[name]][0]

    def put(self, name: str, body: bytes | None) -> None:
        """Put other bytes in the place of an object, or none."""
        key = self.keys[name]
        if body is None:
            del self.store._objects[key]
        else:
            self.store._objects[key] = body, self.store._objects[key][1]


async def store_all(recorder: Recorder, store: MemoryStore) -> dict[str, str]:
    """Store the seven transactions; return the keys by what the tests call them."""
    claim = Claim(id="me", epoch=1, claimed_ms=1, instance="here")
    await store.put(claim_key(Epoch(1)), encode_record(claim))
    await recorder.start(store)
    keys = {
        "claim": claim_key(Epoch(1)),
        "start": layout.start_key(Epoch(1)),
        "end": layout.end_key(Epoch(1)),
        "snapshot 1": await recorder.snapshot(store, 1),
    }
    first = {key for key in store._objects if layout.parse_chunk(key)}
    keys["snapshot 5"] = await recorder.snapshot(store, 5)
    keys["chunk of 1"] = min(first)
    keys["chunk of 5"] = min({key for key in store._objects if layout.parse_chunk(key)} - first)
    for txid in range(2, 8):
        keys[f"segment {txid}"] = await recorder.segment(store, txid)
    keys["segment 2-4"] = await recorder.segment(store, 2, 4)
    await recorder.end(store, 7)
    return keys


@pytest.fixture
async def replica(tmp_path: Path) -> AsyncIterator[Replica]:
    """Return a sound replica."""
    (tmp_path / "source").mkdir()
    with Recorder(path=tmp_path / "source" / "app.db") as recorder:
        recorder.fill(200)
        recorder.fill(10)
        recorder.commit("DELETE FROM t WHERE id % 2")
        recorder.commit("VACUUM")
        recorder.fill(300)
        recorder.commit("UPDATE t SET body = randomblob(100) WHERE id < 5")
        store = MemoryStore("bucket/app.db")
        yield Replica(recorder, store, tmp_path, await store_all(recorder, store))
