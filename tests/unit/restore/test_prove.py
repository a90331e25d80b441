"""The proof that a file is what the source was."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import reduce
from operator import xor
from typing import TYPE_CHECKING

import apsw
import pytest

from replicad.errors import ProofFailed
from replicad.host.interruptible import Interrupted, interruptible
from replicad.host.threads import Threads
from replicad.position import lock_page
from replicad.restore.image import Image
from replicad.restore.prove import Proof, ask_sqlite
from replicad.restore.request import Integrity
from replicad.wal.pagetable import no_hashes, page_hash

if TYPE_CHECKING:
    from pathlib import Path

NEVER = threading.Event()


def new_image(path: Path, *, size_bytes: int, page_size: int) -> Image:
    """Return an image that was created."""
    image = Image(path, size_bytes=size_bytes, page_size=page_size)
    image.create()
    return image


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_every_page_counts_at_its_place(tmp_path: Path, page_size: int) -> None:
    """The checksum is the XOR of each page's hash seeded with its number, whether each is noted or not."""
    pages = (3 << 20) // page_size + 5
    body = os.urandom(pages * page_size)
    image = new_image(tmp_path / "a", size_bytes=len(body), page_size=page_size)
    image.write_runs(0, body, [(0, pages)])
    hashes = [page_hash(body[n * page_size : (n + 1) * page_size], n + 1) for n in range(pages)]
    expected = reduce(xor, hashes)
    noting = Proof(image, hashes=no_hashes(pages))
    assert Proof(image).finish(NEVER) == noting.finish(NEVER) == expected
    assert noting.table is not None
    assert (noting.table.page_size, noting.table.pages, noting.table.checksum) == (page_size, pages, expected)
    assert [noting.table.hash_of(pgno) for pgno in range(1, pages + 1)] == hashes
    assert Proof(image).table is None
    image.write_runs(1, body[:page_size], [(1, 1)])
    assert Proof(image).finish(NEVER) != expected
    image.remove()


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
@pytest.mark.parametrize("noting", [False, True])
def test_pages_count_once_in_whatever_order(tmp_path: Path, page_size: int, *, noting: bool) -> None:
    """What was read back early, in any order and by several threads, counts once; the end reads only what is left.

    Seen to fail without the byte a page that says what was read: a page that is read twice cancels itself out.
    """
    pages = (5 << 20) // page_size + 3
    body = os.urandom(pages * page_size)
    image = new_image(tmp_path / "a", size_bytes=len(body), page_size=page_size)
    image.write_runs(0, body, [(0, pages)])
    proof = Proof(image, hashes=no_hashes(pages) if noting else None)
    third = pages // 3
    early = [
        (2 * third, pages - 2 * third, [(2 * third, third - 1), (pages - 1, 1)]),
        (0, third, [(0, 1), (third // 2, 2), (third // 2 + 3, third // 3)]),
        (third, third, [(third, third)]),
    ]
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(proof.take, *zip(*early, strict=True)))
    proof.take(0, third, [(0, 2)])  # one of them for the second time
    assert proof.finish(NEVER) == Proof(image).finish(NEVER)
    image.remove()


def test_what_is_read_back_early_is_read_from_the_file(tmp_path: Path) -> None:
    """A page that stands in the file other than it was written is found, however early it is read back."""
    body = os.urandom(8 * 4096)
    image = new_image(tmp_path / "a", size_bytes=len(body), page_size=4096)
    image.write_runs(0, body, [(0, 8)])
    sound = Proof(image).finish(NEVER)
    with (tmp_path / "a").open("r+b") as file:
        file.seek(5 * 4096)
        file.write(bytes([body[5 * 4096] ^ 1]))
    proof = Proof(image)
    proof.take(4, 4, [(5, 2)])
    assert proof.finish(NEVER) != sound
    image.remove()


def test_what_is_written_later_counts_later(tmp_path: Path) -> None:
    """A page that a chunk has an older version of counts once, as what is written in the end."""
    body = os.urandom(8 * 4096)
    image = new_image(tmp_path / "a", size_bytes=len(body), page_size=4096)
    older = bytearray(body)
    older[2 * 4096 : 4 * 4096] = bytes(2 * 4096)
    proof = Proof(image)
    proof.later([3, 4])
    assert proof.are_later(2, 2)
    assert not proof.are_later(2, 3)
    image.write_runs(0, bytes(older), [(0, 8)])
    proof.take_whole(0, memoryview(bytes(older)))
    assert proof.are_later(2, 2)
    image.write_frames([(3, 2), (4, 3)], body, 0)
    proof.written([3])
    assert proof.finish(NEVER) == Proof(image).finish(NEVER)
    assert (tmp_path / "a").read_bytes() == body
    image.remove()


def test_the_lock_page_does_not_count(tmp_path: Path) -> None:
    """Across 1 GiB the page that holds SQLite's lock bytes is left out of the checksum."""
    page_size = 65536
    lock = lock_page(page_size)
    image = new_image(tmp_path / "a", size_bytes=(lock + 1) * page_size, page_size=page_size)
    image.write_runs(lock - 1, b"x" * page_size, [(lock - 1, 1)])
    image.write_runs(lock, b"y" * page_size, [(lock, 1)])
    expected = page_hash(b"y" * page_size, lock + 1)
    zeros = bytes(page_size)
    for pgno in range(1, lock):
        expected ^= page_hash(zeros, pgno)
    assert Proof(image).finish(NEVER) == expected
    image.remove()


def test_a_database_of_no_pages_has_the_checksum_zero(tmp_path: Path) -> None:
    """An empty database is proven too."""
    image = new_image(tmp_path / "a", size_bytes=0, page_size=4096)
    proof = Proof(image, hashes=no_hashes(0))
    assert proof.finish(NEVER) == 0
    assert proof.table is not None
    assert proof.table.pages == 0
    ask_sqlite(tmp_path / "a", Integrity.FULL, NEVER)
    image.remove()


def test_a_file_that_became_shorter_is_not_proven(tmp_path: Path) -> None:
    """Bytes that are gone when they are read back are a failed proof, not a shorter checksum."""
    image = new_image(tmp_path / "a", size_bytes=8192, page_size=4096)
    os.truncate(tmp_path / "a", 5000)
    with pytest.raises(ProofFailed, match="bytes at 0 expected 8192, found 5000"):
        Proof(image).finish(NEVER)
    with pytest.raises(ProofFailed, match="bytes at 4096 expected 4096, found 904"):
        Proof(image).take(1, 1, [(1, 1)])
    image.remove()


def make_broken(path: Path) -> None:
    """Make a database whose index does not match its table; every page is as it was written."""
    with closing(apsw.Connection(str(path))) as connection:
        connection.pragma("journal_mode", "wal")
        connection.execute("CREATE TABLE t (x); CREATE INDEX i ON t (x); INSERT INTO t VALUES (1), (2)")
        connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 0)
        connection.pragma("writable_schema", 1)
        connection.execute("UPDATE sqlite_schema SET sql = 'CREATE INDEX i ON t (x DESC)' WHERE name = 'i'")


@pytest.mark.parametrize(("integrity", "finds"), [(Integrity.QUICK, False), (Integrity.FULL, True)])
def test_sqlite_finds_fault_by_itself(tmp_path: Path, integrity: Integrity, *, finds: bool) -> None:
    """`full` finds an index that contradicts its table, `quick` does not look at it; neither leaves a file behind."""
    make_broken(tmp_path / "a")
    if finds:
        with pytest.raises(ProofFailed, match="PRAGMA integrity_check"):
            ask_sqlite(tmp_path / "a", integrity, NEVER)
    else:
        ask_sqlite(tmp_path / "a", integrity, NEVER)
    assert [found.name for found in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("name", ["with space.db", "per%cent?.db", "hash#.db"])
def test_any_name_can_be_asked_about(tmp_path: Path, name: str) -> None:
    """A file name that means something in a URI is still opened, and no other is made."""
    with closing(apsw.Connection(str(tmp_path / name))) as connection:
        connection.execute("CREATE TABLE t (x)")
    ask_sqlite(tmp_path / name, Integrity.QUICK, NEVER)
    assert [found.name for found in tmp_path.iterdir()] == [name]


def test_what_is_no_database_is_not_proven(tmp_path: Path) -> None:
    """A file SQLite cannot open at all is a failed proof."""
    (tmp_path / "a").write_bytes(b"not a database" * 100)
    with pytest.raises(ProofFailed, match="not a database"):
        ask_sqlite(tmp_path / "a", Integrity.QUICK, NEVER)


def test_an_interrupted_check_stops(tmp_path: Path) -> None:
    """Both long loops look at whether somebody still waits."""
    stop = threading.Event()
    stop.set()
    image = new_image(tmp_path / "a", size_bytes=8192, page_size=4096)
    with pytest.raises(Interrupted):
        Proof(image).finish(stop)
    image.remove()
    with closing(apsw.Connection(str(tmp_path / "b"))) as connection:
        connection.execute("CREATE TABLE t (x INTEGER PRIMARY KEY)")
        connection.execute(
            "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 200000) SELECT i FROM n"
        )
    with pytest.raises(Interrupted):
        ask_sqlite(tmp_path / "b", Integrity.FULL, stop)


async def test_a_cancelled_caller_stops_the_thread() -> None:
    """Cancelling the wait for a long check ends the check, and only then the wait."""
    threads = Threads("test", 1)
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()
    ended = []

    def check(stop: threading.Event) -> None:
        loop.call_soon_threadsafe(begun.set)
        assert stop.wait(10)
        ended.append(1)

    waiter = asyncio.create_task(interruptible(threads, check))
    await begun.wait()
    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)
    assert waiter.cancelled()
    assert ended == [1]
    await threads.close()
