"""Letting the application work, and what it found."""

from __future__ import annotations

import json
import os
import random
import secrets
import sqlite3
import subprocess
import sys
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.peers.application import connect, noise_bytes, rows, transaction

if TYPE_CHECKING:
    from collections.abc import Iterator

_FRAME_HEADER_BYTES = 24
_WAL_HEADER_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Commits:
    """When each commit began and when it returned (CLOCK_MONOTONIC), in the order of their ends."""

    began: list[float]
    ended: list[float]

    @property
    def latencies(self) -> list[float]:
        """Seconds of each."""
        return [after - before for before, after in zip(self.began, self.ended, strict=True)]

    @property
    def rate(self) -> float:
        """Commits a second, over all writers."""
        return len(self.ended) / (self.ended[-1] - min(self.began)) if self.ended else 0.0

    @property
    def longest(self) -> float:
        """The longest one, in seconds."""
        return max(self.latencies, default=0.0)


@dataclass(frozen=True, slots=True)
class Writer:
    """An application at work."""

    process: subprocess.Popen[bytes]
    output: Path

    def commits(self) -> Commits:
        """Return what was acknowledged so far."""
        pairs = array("d")
        whole = self.output.read_bytes() if self.output.exists() else b""
        pairs.frombytes(whole[: len(whole) // 16 * 16])
        return Commits(began=pairs[0::2].tolist(), ended=pairs[1::2].tolist())


def begin(database: Path, work: dict[str, Any]) -> Writer:
    """Start an application."""
    output = database.parent / f"commits-{secrets.token_hex(4)}"
    command = [sys.executable, "-m", "bench.peers.application", str(database), str(output), json.dumps(work)]
    return Writer(subprocess.Popen(command), output)


def perform(database: Path, work: dict[str, Any]) -> Commits:
    """Let an application work to its end, or as many as `writers` says.

    Raises:
        RuntimeError: One failed.
    """
    started = [
        begin(database, {**work, "seed": work.get("seed", 0) + number}) for number in range(work.get("writers", 1))
    ]
    for writer in started:
        if writer.process.wait():
            raise RuntimeError("the application failed")
    pairs = sorted(_pairs(started), key=lambda pair: pair[1])
    return Commits(began=[pair[0] for pair in pairs], ended=[pair[1] for pair in pairs])


def _pairs(writers: list[Writer]) -> Iterator[tuple[float, float]]:
    for writer in writers:
        commits = writer.commits()
        yield from zip(commits.began, commits.ended, strict=True)


def wal_bytes_per_commit(database: Path, work: dict[str, Any], *, commits: int = 300) -> float:
    """Return what a commit of this work puts into the WAL: tried on a copy, with no checkpoint in between."""
    copy = database.with_name("calibrate.db")
    copy.write_bytes(database.read_bytes())
    random_ = random.Random(1)
    bodies = rows(random_, work.get("row_bytes", 300))
    connection = connect(str(copy))
    try:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        for _ in range(commits):
            transaction(connection, work, random_, bodies)
        size = copy.with_name("calibrate.db-wal").stat().st_size
    finally:
        connection.close()
        _remove(copy)
    return (size - _WAL_HEADER_BYTES) / commits


def noise_per_row(work: dict[str, Any]) -> float:
    """Return how many bytes of each of this work's rows no compressor can do without."""
    bodies = rows(random.Random(1), work.get("row_bytes", 300))[:1_000]
    return sum(map(noise_bytes, bodies)) / len(bodies)


def _remove(database: Path) -> None:
    for end in ("", "-wal", "-shm"):
        Path(f"{database}{end}").unlink(missing_ok=True)


def sound(database: Path) -> bool:
    """Tell whether SQLite finds nothing wrong."""
    connection = sqlite3.connect(database)
    try:
        return bool(connection.execute("PRAGMA quick_check").fetchone()[0] == "ok")
    finally:
        connection.close()


def write_back() -> None:
    """Let what earlier work left dirty reach the disk, so that the next does not wait for it."""
    os.sync()
