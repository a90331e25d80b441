"""Chunks that go to the disk past the page cache: the file is the same, and where it cannot be done it is not."""

from __future__ import annotations

import errno
import mmap
import os
import threading
from typing import TYPE_CHECKING

import pytest

from replicad.errors import FileUnusable, NoSpace
from replicad.host.interruptible import Interrupted
from replicad.plan.target import AtTXID
from replicad.position import TXID
from replicad.restore.image import Image
from replicad.restore.overlay import MOST_BYTES, Overlay
from replicad.restore.prove import Proof
from replicad.restore.request import Integrity, Limits, RestoreRequest
from replicad.restore.restore import restore
from tests.support.evidence import holds
from tests.unit.restore.conftest import stored

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from replicad.store.memory import MemoryStore
    from tests.support.recorder import Recorder

SIZE = 4096


class Writes:
    """What `write_whole` was asked for, and whether it did it; how many files were begun.

    And how many pages were kept aside for each chunk.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: list[bool] = []
        self.files = 0
        self.room_bytes = MOST_BYTES
        self.laid_over: list[int] = []
        whole, create, read = Image.write_whole, Image.create, Overlay.read

        def write_whole(image: Image, first: int, images: memoryview) -> bool:
            done = whole(image, first, images)
            self.answers.append(done)
            return done

        def create_one(image: Image) -> None:
            self.files += 1
            create(image)

        def read_some(overlay: Overlay, found: Mapping[int, int], first: int, images: memoryview) -> None:
            self.laid_over.append(len(found))
            read(overlay, found, first, images)

        monkeypatch.setattr(Image, "write_whole", write_whole)
        monkeypatch.setattr(Image, "create", create_one)
        monkeypatch.setattr(Overlay, "read", read_some)


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Writes:
    """Have databases of every size written so, and note the writes."""
    monkeypatch.setattr("replicad.restore.image._DIRECT_BYTES", 0)
    image = Image(tmp_path / "probe", size_bytes=SIZE, page_size=SIZE)
    image.create()
    if not image.is_direct:
        pytest.skip("the file system of the tests' folder knows no O_DIRECT")
    image.remove()
    return Writes(monkeypatch)


@pytest.fixture
def image(writes: Writes, tmp_path: Path) -> Iterator[Image]:
    """Return an image of 64 pages of zeros."""
    del writes
    found = Image(tmp_path / "image", size_bytes=64 * SIZE, page_size=SIZE)
    found.create()
    yield found
    found.remove()


@pytest.fixture(params=[0, 5 * SIZE, MOST_BYTES])
def limited(request: pytest.FixtureRequest, writes: Writes, monkeypatch: pytest.MonkeyPatch) -> Writes:
    """Have room for so many bytes beside the image."""
    writes.room_bytes = request.param
    monkeypatch.setattr("replicad.restore.workshop.MOST_BYTES", writes.room_bytes)
    return writes


def aligned(content: bytes) -> memoryview:
    """Return the content in memory that begins at a page of it."""
    room = mmap.mmap(-1, len(content))
    room[:] = content
    return memoryview(room)


@pytest.mark.usefixtures("fine_clock")
@pytest.mark.parametrize("evidence", [False, True])
async def test_every_transaction_byte_for_byte(
    recorder: Recorder, store: MemoryStore, tmp_path: Path, limited: Writes, *, evidence: bool
) -> None:
    """Whatever segments have settled among a chunk's pages, the file is the one that SQLite had.

    Wherever that waits for the chunk: in the image, beside it, or partly there.
    """
    await stored(recorder, store)
    for number, found in recorder.transactions.items():
        path = tmp_path / f"{number}.db"
        request = RestoreRequest(path=path, target=AtTXID(TXID(number)), integrity=Integrity.FULL, evidence=evidence)
        restored = await restore(store, request)
        assert path.read_bytes() == found.database
        assert restored.checksum == found.checksum
        assert holds(restored.evidence, path) if evidence else restored.evidence is None
    assert any(limited.answers)
    assert any(limited.laid_over) == bool(limited.room_bytes)
    assert limited.files == len(recorder.transactions)


async def test_chunks_take_along_what_is_kept_for_them(
    recorder: Recorder, store: MemoryStore, tmp_path: Path, limited: Writes
) -> None:
    """One thread, so that the segment is unpacked before the chunks around its pages are. Seen to fail without them."""
    await recorder.start(store)
    await recorder.snapshot(store, 2)
    await recorder.segment(store, 3, 3, block_bytes=1 << 20)
    path = tmp_path / "restored.db"
    await restore(store, RestoreRequest(path=path, target=AtTXID(TXID(3)), limits=Limits(threads=1)))
    assert path.read_bytes() == recorder.transactions[3].database
    assert limited.files == 1
    assert any(limited.answers)
    assert any(limited.laid_over) == bool(limited.room_bytes)
    assert sum(limited.laid_over) <= len(recorder.transactions[3].pgnos)  # each of them once


async def test_what_is_settled_and_not_written_yet_is_not_written_over(
    recorder: Recorder, store: MemoryStore, tmp_path: Path, writes: Writes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRAP: a write of a whole chunk over a page that another thread is about to write, or just has.

    Such chunks are written page by page. Seen to fail with the older versions written over the newer ones: the proof
    finds that, and a second attempt, chunk by chunk.
    """
    await recorder.start(store)
    await recorder.snapshot(store, 2)
    await recorder.segment(store, 3, 3, block_bytes=1 << 20)
    monkeypatch.setattr("replicad.restore.workshop.MOST_BYTES", 0)
    asked: list[int] = []

    def are_written(proof: Proof, first: int, count: int) -> bool:
        del proof, first
        asked.append(count)
        return False

    monkeypatch.setattr(Proof, "are_written", are_written)
    path = tmp_path / "restored.db"
    await restore(store, RestoreRequest(path=path, target=AtTXID(TXID(3))))
    assert path.read_bytes() == recorder.transactions[3].database
    assert asked
    assert writes.files == 1


async def test_what_is_unpacked_last_holds_no_chunk_up(
    recorder: Recorder, store: MemoryStore, tmp_path: Path, writes: Writes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages of a segment that refers to older ones are written when all chunks are: these are written whole.

    Seen to fail when such pages are not told apart: every chunk with one of them goes through the page cache.
    """
    await recorder.start(store)
    await recorder.snapshot(store, 6)
    await recorder.segment(store, 7, 7)
    runs: list[int] = []
    real = Image.write_runs

    def write_runs(image: Image, first: int, images: memoryview, parts: list[tuple[int, int]]) -> None:
        runs.append(first)
        real(image, first, images, parts)

    monkeypatch.setattr(Image, "write_runs", write_runs)
    path = tmp_path / "restored.db"
    await restore(store, RestoreRequest(path=path, target=AtTXID(TXID(7))))
    assert path.read_bytes() == recorder.transactions[7].database
    assert all(writes.answers)
    assert runs == []
    assert writes.files == 1


def test_the_file_holds_what_was_written(image: Image, writes: Writes, tmp_path: Path) -> None:
    """The pages are in the file, over those that the page cache held; their neighbours are what they were."""
    body = os.urandom(8 * SIZE)
    image.write_frames([(9, 0), (10, 1), (30, 2)], os.urandom(2 * SIZE) + b"n" * SIZE, 0)
    assert image.write_whole(8, aligned(body))
    assert (tmp_path / "image").read_bytes() == bytes(8 * SIZE) + body + bytes(13 * SIZE) + b"n" * SIZE + bytes(
        34 * SIZE
    )
    assert writes.answers == [True]


def test_places_that_are_not_aligned_are_refused(tmp_path: Path, writes: Writes) -> None:
    """With pages of 512 bytes a chunk may begin or end between two blocks of the disk: not so, then."""
    image = Image(tmp_path / "small", size_bytes=64 * SIZE, page_size=512)
    image.create()
    assert not image.write_whole(1, aligned(bytes(SIZE)))
    assert not image.write_whole(8, aligned(bytes(SIZE + 512)))
    assert image.write_whole(8, aligned(b"x" * SIZE))
    assert writes.answers == [False, False, True]
    image.remove()


def test_a_file_system_that_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: Writes) -> None:
    """Where the file cannot be opened that way, or the first write is refused, nothing is written, and that is said."""
    del writes
    image = Image(tmp_path / "refused", size_bytes=64 * SIZE, page_size=SIZE)
    image.create()
    real = os.pwrite

    def pwrite(descriptor: int, body: memoryview, offset: int) -> int:
        del descriptor, body, offset
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "pwrite", pwrite)
    assert not image.write_whole(0, aligned(b"x" * SIZE))
    monkeypatch.setattr(os, "pwrite", real)
    image.remove()
    opened = os.open

    def refuse(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return opened(path, flags, mode)

    monkeypatch.setattr(os, "open", refuse)
    image = Image(tmp_path / "refused", size_bytes=64 * SIZE, page_size=SIZE)
    image.create()
    assert not image.is_direct
    assert not image.write_whole(0, aligned(b"x" * SIZE))
    image.remove()


def test_a_short_write_is_completed(image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one write leaves over (the disk is nearly full, or a signal came) is written behind it."""
    body, real = os.urandom(8 * SIZE), os.pwrite

    def half(descriptor: int, images: memoryview, offset: int) -> int:
        monkeypatch.setattr(os, "pwrite", real)
        return real(descriptor, images[: len(images) // 2], offset)

    monkeypatch.setattr(os, "pwrite", half)
    assert image.write_whole(0, aligned(body))
    assert (tmp_path / "image").read_bytes()[: len(body)] == body


def test_a_full_disk(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no failure of this way of writing, and no reason to try the other."""

    def pwrite(descriptor: int, images: memoryview, offset: int) -> int:
        del descriptor, images, offset
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(NoSpace):
        image.write_whole(0, aligned(bytes(SIZE)))


@pytest.mark.parametrize("place", [0, 7])
def test_a_disk_that_does_not_keep_what_is_written(image: Image, monkeypatch: pytest.MonkeyPatch, place: int) -> None:
    """The first and the last page of each chunk are read back from the disk at the end.

    Seen to fail without that look, and without its part in a restore.
    """
    real = os.pwrite

    def pwrite(descriptor: int, images: memoryview, offset: int) -> int:
        body = bytearray(images)
        body[place * SIZE + 5] ^= 1
        return real(descriptor, aligned(bytes(body)), offset)

    assert image.write_whole(8, aligned(os.urandom(8 * SIZE)))
    image.check_ends(threading.Event())
    monkeypatch.setattr(os, "pwrite", pwrite)
    assert image.write_whole(0, aligned(os.urandom(8 * SIZE)))
    with pytest.raises(FileUnusable, match=f"other bytes at {place * SIZE}"):
        image.check_ends(threading.Event())
    asked = threading.Event()
    asked.set()
    with pytest.raises(Interrupted):
        image.check_ends(asked)


async def test_a_restore_looks_at_the_ends(
    recorder: Recorder, store: MemoryStore, tmp_path: Path, writes: Writes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRAP: a disk that answers and keeps nothing; a file of which that is found is not put in place."""
    await stored(recorder, store)
    real = Image.write_whole

    def write_whole(image: Image, first: int, images: memoryview) -> bool:
        done = real(image, first, images)
        stop = first + len(images) // SIZE
        image.write_runs(first, bytes(len(images)), [(first, 1), (stop - 1, 1)])
        return done

    monkeypatch.setattr(Image, "write_whole", write_whole)
    path = tmp_path / "restored.db"
    with pytest.raises(FileUnusable, match="other bytes at"):
        await restore(store, RestoreRequest(path=path, target=AtTXID(TXID(4))))
    assert any(writes.answers)
    assert not path.exists()
