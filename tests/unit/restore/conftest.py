"""A recorded database and its stored history, ready to be restored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from replicad.store.memory import MemoryStore
from tests.support.evidence import fine_clock
from tests.support.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


__all__ = ["fine_clock"]


@pytest.fixture
def store() -> MemoryStore:
    """Return an empty store."""
    return MemoryStore("bucket/app.db")


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """Return a database of seven transactions that grows, changes, shrinks by VACUUM and grows again."""
    source = tmp_path / "source"
    source.mkdir()
    with Recorder(path=source / "app.db") as recorder:
        recorder.fill(200)
        recorder.fill(10)
        recorder.commit("DELETE FROM t WHERE id % 2")
        recorder.commit("VACUUM")
        recorder.fill(300)
        recorder.commit("UPDATE t SET body = randomblob(100) WHERE id < 5")
        assert recorder.transactions[5].pages < recorder.transactions[4].pages < recorder.transactions[7].pages
        yield recorder


async def stored(recorder: Recorder, store: MemoryStore) -> None:
    """Store the seven transactions in four segments that overlap, and two snapshots."""
    await recorder.start(store)
    await recorder.snapshot(store, 1)
    await recorder.snapshot(store, 4)
    for first, last in ((2, 4), (3, 5), (5, 5), (6, 7)):
        await recorder.segment(store, first, last)
