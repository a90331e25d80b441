from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from replicad.layout import ManifestKey
from replicad.position import TXID, Epoch
from replicad.snapshot import Chunk, Manifest, chunk_name, compress_chunk, encode_manifest
from tests.support.mentions import ROOT, fenced

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE_SIZE, CHUNK_PAGES = 4096, 16

pytestmark = pytest.mark.skipif(
    shutil.which("zstd") is None or shutil.which("sh") is None, reason="needs the programs sh and zstd"
)


def shell_lines() -> str:
    """Return the lines that the README gives for a restore without replicad."""
    blocks = fenced((ROOT / "README.md").read_text(encoding="utf-8"), "sh")
    (found,) = [block for block in blocks if "zstd -d" in block]
    return found


def directory_lines() -> str:
    """Return the lines that the format's document gives for the directory of a roll-up."""
    blocks = fenced((ROOT / "docs" / "format.md").read_text(encoding="utf-8"), "sh")
    (found,) = [block for block in blocks if "$rollup" in block]
    return found


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database of many pages; some of its chunks are equal to others."""
    path = tmp_path / "source.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
        connection.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT, padding BLOB)")
        rows = [(f"note {number}", bytes(PAGE_SIZE)) for number in range(500)]
        connection.executemany("INSERT INTO notes (text, padding) VALUES (?, ?)", rows)
        connection.execute("CREATE TABLE zeros (padding BLOB)")
        connection.execute("INSERT INTO zeros VALUES (zeroblob(?))", (64 * CHUNK_PAGES * PAGE_SIZE,))
        connection.commit()
    return path


def write_snapshot(root: Path, image: bytes, *, epoch: int, txid: int, older: dict[str, int]) -> None:
    """Store an image as replicad lays it out; chunks in `older` are listed from the epoch that holds them."""
    chunks = []
    for raw in _pieces(image):
        name = chunk_name(raw)
        stored = compress_chunk(raw)
        chunk = Chunk(name=name, epoch=older.setdefault(name, epoch), stored_bytes=len(stored), raw_bytes=len(raw))
        target = root / chunk.key
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(stored)
        chunks.append(chunk)
    manifest = Manifest(
        database_id="0" * 32,
        epoch=epoch,
        txid=txid,
        commit_ms=1_700_000_000_000 + txid,
        page_size=PAGE_SIZE,
        pages=len(image) // PAGE_SIZE,
        checksum="0" * 16,
        chunk_pages=CHUNK_PAGES,
        created_ms=1_700_000_000_000 + txid,
        reason="test",
        chunks=tuple(chunks),
    )
    target = root / str(ManifestKey(epoch=Epoch(epoch), txid=TXID(txid), ms=manifest.commit_ms))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(encode_manifest(manifest))


def _pieces(image: bytes) -> Iterator[bytes]:
    step = CHUNK_PAGES * PAGE_SIZE
    return (image[start : start + step] for start in range(0, len(image), step))


def test_a_snapshot_comes_back_with_a_shell_and_zstd(tmp_path: Path, database: Path) -> None:
    """The README's lines restore the newest snapshot, byte for byte, by the shell and the real zstd program alone.

    Two snapshots in two epochs, the newer one listing chunks of the older epoch. With `tail -n 1` left out of the
    README's lines, and with `head` in its place, the test was seen to fail.
    """
    root, older = tmp_path / "bucket" / "app.db", dict[str, int]()
    write_snapshot(root, database.read_bytes(), epoch=9, txid=255, older=older)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE notes SET text = 'changed' WHERE id = 250")
        connection.commit()
    newest = database.read_bytes()
    write_snapshot(root, newest, epoch=10, txid=256, older=older)

    done = subprocess.run(["sh", "-eu", "-c", shell_lines()], cwd=tmp_path, capture_output=True, check=False)

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "by-hand.db").read_bytes() == newest
    assert set(older.values()) == {9, 10}, "the newer snapshot shares chunks with the older epoch"
    with closing(sqlite3.connect(tmp_path / "by-hand.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT text FROM notes WHERE id = 250").fetchone() == ("changed",)


def test_a_segment_is_taken_out_of_a_roll_up_with_a_shell() -> None:
    """The lines of docs/format.md list what stands in a roll-up, and take a segment out of it, byte for byte."""
    golden = ROOT / "tests" / "golden"
    environment = {"PATH": os.environ["PATH"], "rollup": str(golden / "rollup.1.segs")}
    listed = subprocess.run(["sh", "-eu", "-c", directory_lines()], env=environment, capture_output=True, check=True)
    rows = [[int(number) for number in line.split()] for line in listed.stdout.splitlines()]
    assert [row[:3] for row in rows] == [[4711, 4713, 1_764_547_200_999], [4714, 4714, 1_764_547_201_000]]
    text = (ROOT / "docs" / "format.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"`(tail -c \+[^`]*) > one.seg`", text)
    environment |= {"offset": str(rows[0][3]), "size": str(rows[0][4])}
    taken = subprocess.run(["sh", "-eu", "-c", line], env=environment, capture_output=True, check=True)
    assert taken.stdout == (golden / "small-2.seg").read_bytes()
