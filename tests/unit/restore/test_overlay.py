"""Pages kept aside until the chunk around them is written: all of them come back, each where it belongs."""

from __future__ import annotations

import errno
import os
import random
from typing import TYPE_CHECKING

import pytest

from replicad.errors import FileUnusable
from replicad.restore import overlay as module
from replicad.restore import rows
from replicad.restore.overlay import Overlay

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 512
ROOM = 1 << 20


def page(pgno: int) -> bytes:
    """Return the content of a page."""
    return pgno.to_bytes(4, "big") * (SIZE // 4)


def block(pgnos: list[int]) -> bytes:
    """Return a block of these pages."""
    return b"".join(map(page, pgnos))


def chunk(overlay: Overlay, first: int, count: int) -> bytes:
    """Return pages in a row, those that are not kept being zeros."""
    images = memoryview(bytearray(count * SIZE))
    overlay.read(overlay.find(range(first, first + count)), first, images)
    return bytes(images)


@pytest.fixture
def overlay(tmp_path: Path) -> Overlay:
    """Return one with room for all that is put there."""
    return Overlay(tmp_path, page_size=SIZE, room_bytes=ROOM)


@pytest.mark.parametrize("iov_max", [1, 3, 1024])
def test_every_page_comes_back(overlay: Overlay, monkeypatch: pytest.MonkeyPatch, iov_max: int) -> None:
    """Blocks of pages in any order, of which not all are wanted; chunks are read in any order, too."""
    monkeypatch.setattr(rows, "IOV_MAX", iov_max)
    monkeypatch.setattr(module, "IOV_MAX", iov_max)
    rng = random.Random(7)
    pgnos = rng.sample(range(1, 1001), 400)
    for begin in range(0, len(pgnos), 90):
        row = pgnos[begin : begin + 90]
        frames = [(pgno, 5_000 + number) for number, pgno in enumerate(row) if number % 7]
        rng.shuffle(frames)
        assert overlay.put(frames, block(row), 5_000)
    kept = {pgno for number, pgno in enumerate(pgnos) if number % 90 % 7}
    for first in rng.sample(range(0, 1000, 100), 10):
        expected = b"".join(page(at + 1) if at + 1 in kept else bytes(SIZE) for at in range(first, first + 100))
        assert chunk(overlay, first, 100) == expected
    overlay.close()


def test_what_no_chunk_takes_is_handed_out_at_the_end(overlay: Overlay, tmp_path: Path) -> None:
    """What was dropped is not among it; the file never had a name."""
    pgnos = list(range(1, 301))
    assert overlay.put([(pgno, pgno) for pgno in pgnos], bytes(SIZE) + block(pgnos), 0)
    overlay.drop(range(50, 150))
    overlay.drop([60, 5_000])  # forgotten already, and never known
    rest = {
        pgno: bytes(images[number * SIZE : (number + 1) * SIZE])
        for frames, images in overlay.rest()
        for pgno, number in frames
    }
    assert rest == {pgno: page(pgno) for pgno in pgnos if not 51 <= pgno <= 150}
    assert list(tmp_path.iterdir()) == []
    overlay.close()
    assert list(overlay.rest()) == []


@pytest.mark.parametrize(("room_bytes", "most_pages"), [(10 * SIZE, 32_768), (ROOM, 10)])
def test_no_more_than_there_is_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room_bytes: int, most_pages: int
) -> None:
    """A block that does not fit as a whole is refused as a whole; a smaller one may fit behind it."""
    monkeypatch.setattr(module, "_MOST_PAGES", most_pages)
    overlay = Overlay(tmp_path, page_size=SIZE, room_bytes=room_bytes)
    assert overlay.put([(n, n) for n in range(1, 9)], block(list(range(9))), 0)
    assert not overlay.put([(20, 0), (21, 1), (22, 2)], block([20, 21, 22]), 0)
    assert overlay.find(range(100)).keys() == set(range(8))
    assert overlay.put([(30, 0), (31, 1)], block([30, 31]), 0)
    assert chunk(overlay, 29, 2) == block([30, 31])
    overlay.close()


def test_without_room_nothing_is_kept(tmp_path: Path) -> None:
    """Where chunks do not go past the page cache, no file is made."""
    overlay = Overlay(tmp_path, page_size=SIZE, room_bytes=0)
    assert not overlay.put([(1, 0)], page(1), 0)
    assert overlay.find(range(10)) == {}
    overlay.close()


@pytest.mark.parametrize("problem", ["refused", "short"])
def test_a_disk_that_takes_no_more(overlay: Overlay, monkeypatch: pytest.MonkeyPatch, problem: str) -> None:
    """TRAP: a full disk. What is kept already stays to be had, nothing else is kept: the image's disk may have room."""
    assert overlay.put([(1, 0), (2, 1)], block([1, 2]), 0)
    real = os.pwritev

    def pwritev(descriptor: int, images: list[memoryview], offset: int) -> int:
        if problem == "refused":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, images[:1], offset)

    monkeypatch.setattr(os, "pwritev", pwritev)
    assert not overlay.put([(3, 0), (4, 1)], block([3, 4]), 0)
    monkeypatch.setattr(os, "pwritev", real)
    assert not overlay.put([(3, 0), (4, 1)], block([3, 4]), 0)
    assert chunk(overlay, 0, 4) == block([1, 2]) + bytes(2 * SIZE)
    overlay.close()


@pytest.mark.parametrize("problem", ["refused", "short"])
def test_a_disk_that_gives_nothing_back(overlay: Overlay, monkeypatch: pytest.MonkeyPatch, problem: str) -> None:
    """A page that cannot be read ends the restore; it is not left out."""

    def preadv(*_: object) -> int:
        if problem == "refused":
            raise OSError(errno.EIO, "Input/output error")
        return SIZE

    assert overlay.put([(1, 0), (2, 1)], block([1, 2]), 0)
    monkeypatch.setattr(os, "preadv", preadv)
    with pytest.raises(FileUnusable, match="Input/output error" if problem == "refused" else "less than was written"):
        chunk(overlay, 0, 2)
    overlay.close()
