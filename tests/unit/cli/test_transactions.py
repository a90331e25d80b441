"""The log of a history that was rolled up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from replicad.cli.transactions import Entry, read_entries
from replicad.layout import parse_segment
from replicad.plan.line import line_of_history
from replicad.restore.history import read_history
from replicad.store.memory import MemoryStore
from tests.support.faulty_store import FaultyStore
from tests.support.recorder import STEP_MS, T0_MS, Recorder
from tests.support.rollups import roll_up

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from replicad.store.protocol import ObjectStore

LAST = 21


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """A database of many small transactions."""
    with Recorder(path=tmp_path / "app.db") as found:
        for number in range(2, LAST + 1):
            found.commit(f"INSERT INTO t (body) VALUES (randomblob({number}))")
        yield found


async def entries(store: ObjectStore, *, limit: int = 0, since_ms: int | None = None) -> list[Entry]:
    """Return the log."""
    line = line_of_history(await read_history(store))
    return await read_entries(store, line, limit=limit, since_ms=since_ms)


@pytest.fixture
async def stored(recorder: Recorder) -> tuple[MemoryStore, list[str]]:
    """A snapshot, and every transaction in a segment of its own."""
    store = MemoryStore()
    await recorder.start(store)
    await recorder.snapshot(store, 1)
    return store, [await recorder.segment(store, txid) for txid in range(2, LAST + 1)]


@pytest.mark.parametrize("keep", [False, True])
async def test_the_log_is_the_same(stored: tuple[MemoryStore, list[str]], *, keep: bool) -> None:
    """Rolled up or not, whether or not the small ones are there still, the log says the same, with fewer requests."""
    store, keys = stored
    before = [await entries(store, limit=limit) for limit in (0, 1, 7)]
    since = await entries(store, since_ms=T0_MS + 9 * STEP_MS)
    low = [await roll_up(store, keys[at : at + 4], keep=keep) for at in range(0, 16, 4)]
    await roll_up(store, low[:2], keep=keep)
    assert [await entries(store, limit=limit) for limit in (0, 1, 7)] == before
    assert await entries(store, since_ms=T0_MS + 9 * STEP_MS) == since
    counted = FaultyStore(store)
    await entries(counted)
    assert sum(call.verb == "get" and parse_segment(call.key) is not None for call in counted.calls) == 1 + 2 + 4


async def test_a_damaged_roll_up(stored: tuple[MemoryStore, list[str]]) -> None:
    """TRAP: a roll-up that is broken is a line of the log, and what it was made of is listed as long as it is there.

    Seen to fail (its transactions were missing) when only what no roll-up covers was read.
    """
    store, keys = stored
    rollup = await roll_up(store, keys[:10], keep=True)
    await store.put(rollup, (await store.get(rollup))[:-1])
    found = await entries(store)
    (damaged,) = [one for one in found if one.kind == "damaged"]
    assert (damaged.txid, rollup in damaged.note) == (11, True)
    assert [one.txid for one in found if one.kind == "transaction"] == list(range(LAST, 1, -1))
    await store.delete(keys[:10])
    found = await entries(store)
    assert [one.txid for one in found if one.kind == "transaction"] == list(range(LAST, 11, -1))
