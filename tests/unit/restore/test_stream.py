"""A restore to a pipe."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
from typing import TYPE_CHECKING

import pytest

from replicad.errors import FileUnusable, HistoryGap
from replicad.plan.target import AtTXID
from replicad.position import TXID
from replicad.restore.request import Integrity, RestoreRequest
from replicad.restore.stream import restore_to_stream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from replicad.store.memory import MemoryStore
    from tests.support.recorder import Recorder


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the folder for temporary files."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


class Reader:
    """Reads a pipe to its end in a thread."""

    def __init__(self) -> None:
        self._source, self.descriptor = os.pipe()
        self.body = b""
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        with os.fdopen(self._source, "rb") as file:
            self.body = file.read()

    def end(self) -> bytes:
        """Close the pipe and return all that came."""
        os.close(self.descriptor)
        self._thread.join()
        return self.body


@pytest.mark.usefixtures("temporary")
async def test_the_database_is_written_when_it_is_proven(recorder: Recorder, store: MemoryStore) -> None:
    """The bytes on the pipe are the database, and nothing stays in the temporary folder."""
    await recorder.start(store)
    await recorder.snapshot(store, 1)
    await recorder.segment(store, 2, 6)
    reader = Reader()
    request = RestoreRequest(path=recorder.path, integrity=Integrity.FULL)
    restored = await restore_to_stream(store, request, reader.descriptor)
    assert reader.end() == recorder.transactions[6].database
    assert restored.txid == 6


@pytest.mark.usefixtures("temporary")
async def test_nothing_is_written_of_what_cannot_be_restored(recorder: Recorder, store: MemoryStore) -> None:
    """When the restore fails, not one byte has left."""
    await recorder.start(store)
    await recorder.snapshot(store, 1)
    await recorder.segment(store, 3)
    reader = Reader()
    with pytest.raises(HistoryGap):
        await restore_to_stream(store, RestoreRequest(path=recorder.path), reader.descriptor)
    assert reader.end() == b""


@pytest.mark.usefixtures("temporary")
async def test_a_reader_that_went_away_is_an_error(recorder: Recorder, store: MemoryStore) -> None:
    """A pipe that nobody reads any more is said, and not taken for success."""
    await recorder.start(store)
    await recorder.snapshot(store, 2)
    source, descriptor = os.pipe()
    os.close(source)
    with pytest.raises(FileUnusable, match="standard output could not be written: Broken pipe"):
        await restore_to_stream(store, RestoreRequest(path=recorder.path), descriptor)
    os.close(descriptor)


@pytest.mark.usefixtures("temporary")
async def test_a_reader_that_sleeps_does_not_hold_up_a_signal(recorder: Recorder, store: MemoryStore) -> None:
    """Cancelled while the pipe is full, the restore ends, and cleans up."""
    await recorder.start(store)
    await recorder.snapshot(store, 2)
    source, descriptor = os.pipe()
    request = RestoreRequest(path=recorder.path, target=AtTXID(TXID(2)))
    task = asyncio.create_task(restore_to_stream(store, request, descriptor))
    assert await asyncio.to_thread(os.read, source, 1) == recorder.transactions[2].database[:1]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    os.close(source)
    os.close(descriptor)
