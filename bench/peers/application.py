"""The application of the benchmarks: commits, and writes down when each began and when it returned.

    python -m bench.peers.application DATABASE OUTPUT JSON

OUTPUT gets two doubles (CLOCK_MONOTONIC) for each commit, behind the commit: what stands there was acknowledged, also
after SIGKILL. JSON: `kind` insert (row n of table `load` is commit n when `rows` is 1), update (random rows of table
`filler`) or vacuum; `rate` commits a second (0: flat out); `seconds` and/or `commits`; `rows` a commit; `row_bytes`;
`keys` (update: how many rows there are to choose from); `seed`.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import sqlite3
import struct
import sys
import time
from typing import Any

_PAIR = struct.Struct("dd")
_POOL_BYTES = 16 << 20
_WORDS = [
    "account",
    "active",
    "address",
    "amount",
    "avatar",
    "city",
    "comment",
    "created",
    "email",
    "first",
    "last",
    "order",
    "phone",
    "status",
    "total",
]


def row(random_: random.Random, size: int) -> str:
    """Return a row as applications store them: names and numbers; a third of it is noise, none is repeated."""
    noise = f"{random_.getrandbits(4 * size):x}"
    words = random_.choices(_WORDS, k=size // 24 + 1)
    return "".join(f'"{word}":"{noise[place * 16 : place * 16 + 16]}",' for place, word in enumerate(words))[:size]


def noise_bytes(body: str) -> float:
    """Return how many bytes of a row nobody can do without: its digits, half a byte each, and which words they are."""
    digits = sum(len(part) for part in re.findall(r'":"([0-9a-f]*)', body))
    return digits / 2 + body.count('":"') * math.log2(len(_WORDS)) / 8


def rows(random_: random.Random, size: int) -> list[str]:
    """Return so many rows that no compressor's window sees one twice."""
    return [row(random_, size) for _ in range(min(20_000, _POOL_BYTES // size))]


def connect(path: str) -> sqlite3.Connection:
    """Open the database as an application does that was told to use WAL."""
    database = sqlite3.connect(path, isolation_level=None, timeout=60)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    database.execute("CREATE TABLE IF NOT EXISTS load (id INTEGER PRIMARY KEY, body TEXT)")
    return database


def transaction(database: sqlite3.Connection, work: dict[str, Any], random_: random.Random, bodies: list[str]) -> None:
    """Commit once."""
    count = work.get("rows", 1)
    if work["kind"] == "vacuum":
        database.execute("VACUUM")
        return
    if count > 1:
        database.execute("BEGIN IMMEDIATE")
    for _ in range(count):
        body = random_.choice(bodies)
        if work["kind"] == "insert":
            database.execute("INSERT INTO load (body) VALUES (?)", (body,))
        else:
            database.execute("UPDATE filler SET body = ? WHERE id = ?", (body, random_.randrange(work["keys"]) + 1))
    if count > 1:
        database.execute("COMMIT")


def main() -> None:
    """Write."""
    path, output, work = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    random_ = random.Random(work.get("seed", 0))
    bodies = rows(random_, work.get("row_bytes", 300))
    database = connect(path)
    rate, seconds, commits = work.get("rate", 0), work.get("seconds", 1e9), work.get("commits", 1 << 60)
    if work["kind"] == "vacuum":
        commits = 1
    found = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    began = time.monotonic()
    for number in range(commits):
        if rate:
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
        now = time.monotonic()
        if now - began >= seconds:
            break
        transaction(database, work, random_, bodies)
        os.write(found, _PAIR.pack(now, time.monotonic()))


if __name__ == "__main__":
    main()
