"""Histories made up at random, restored past the page cache to every transaction, byte for byte, at the first attempt.

What segments settle in a chunk may be in the image, beside it, or unpacked last; the chunk may be written whole or page
by page, by one thread or several, with rooms for few answers. Whatever becomes of it, nothing may be left to a second
attempt: the proof would hide a fault of this kind as time.
"""

from __future__ import annotations

import random
import shutil
from typing import TYPE_CHECKING

import pytest

from replicad.plan.target import AtTXID
from replicad.position import TXID
from replicad.restore.image import Image
from replicad.restore.request import Limits, RestoreRequest
from replicad.restore.restore import restore
from replicad.segment import MAX_REFERRING_BYTES
from replicad.store.directory import DirectoryStore
from tests.support.recorder import Recorder

if TYPE_CHECKING:
    from pathlib import Path


def change(recorder: Recorder, rng: random.Random) -> None:
    """Commit a transaction of some kind."""
    kind = rng.choices(("fill", "touch", "update", "delete", "vacuum"), (5, 8, 4, 2, 1))[0]
    if kind == "fill":
        recorder.fill(rng.randint(1, 300), row_bytes=rng.choice((50, 1_000, 6_000)))
    elif kind == "update":
        step = rng.choice((1, 3, 17, 200))
        recorder.commit(f"UPDATE t SET body = randomblob(length(body)) WHERE id % {step} = {rng.randrange(step)}")
    elif kind == "touch":
        some = ", ".join(str(rng.randint(1, 600)) for _ in range(rng.randint(1, 4)))
        recorder.commit(f"UPDATE t SET body = randomblob(length(body)) WHERE id IN ({some})")
    elif kind == "delete":
        recorder.commit(f"DELETE FROM t WHERE id % {rng.randint(2, 9)} = 0")
    else:
        recorder.commit("VACUUM")


@pytest.mark.parametrize("seed", range(8))
async def test_any_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """TRAP: a chunk written over what is newer, a page that nobody wrote, one that counts twice or not at all.

    Seen to fail with each of: a kept page not laid over its chunk, the rest of them not laid down, a page that is
    unpacked last counted with its chunk.
    """
    await restore_all(tmp_path, monkeypatch, seed)


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_many_histories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, many times over."""
    for seed in range(8, 1_000):
        folder = tmp_path / str(seed)
        folder.mkdir()
        with monkeypatch.context() as patched:
            await restore_all(folder, patched, seed)
        shutil.rmtree(folder)


async def restore_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Make up a history, store it, and restore every transaction of it."""
    rng = random.Random(seed)
    monkeypatch.setattr("replicad.restore.image._DIRECT_BYTES", 0)
    attempts: list[Path] = []
    create = Image.create

    def create_one(image: Image) -> None:
        attempts.append(image.path)
        create(image)

    monkeypatch.setattr(Image, "create", create_one)
    (tmp_path / "source").mkdir()
    store = DirectoryStore(tmp_path / "store")
    with Recorder(path=tmp_path / "source" / "app.db", page_size=rng.choice((1024, 4096, 8192))) as recorder:
        recorder.fill(rng.randint(1, 400))
        while recorder.newest < 12:
            change(recorder, rng)
        await recorder.start(store)
        await recorder.snapshot(store, 1, chunk_pages=16)
        snapshots = rng.sample(range(2, recorder.newest), 2)
        for txid in snapshots:
            await recorder.snapshot(store, txid, chunk_pages=rng.choice((8, 16, 64)))
        first = 2
        while first <= recorder.newest:
            last = min(recorder.newest, first + rng.randint(0, 3))
            # what refers to the state before it cannot be gone into from a snapshot in its middle
            pages = sum(len(recorder.transactions[txid].pgnos) for txid in range(first, last + 1))
            inside = any(first <= txid < last for txid in snapshots)
            refers = not inside and pages * recorder.page_size < MAX_REFERRING_BYTES
            await recorder.segment(store, first, last, block_bytes=None if refers else rng.choice((1 << 14, 1 << 20)))
            first = last + 1
        for txid, expected in recorder.transactions.items():
            room_pages = rng.choice((0, 7, 1_000_000))
            monkeypatch.setattr("replicad.restore.workshop.MOST_BYTES", room_pages * recorder.page_size)
            limits = Limits(concurrency=rng.randint(1, 9), threads=rng.randint(1, 3))
            path = tmp_path / f"{txid}.db"
            attempts.clear()
            restored = await restore(store, RestoreRequest(path=path, target=AtTXID(TXID(txid)), limits=limits))
            assert path.read_bytes() == expected.database
            assert restored.checksum == expected.checksum
            assert len(attempts) == 1
    await store.close()
