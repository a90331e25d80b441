"""The application of the benchmarks: commits as fast as it may, and says how long its commits took.

    python -m bench.writer DATABASE SECONDS ROWS_PER_COMMIT BYTES_PER_SECOND(0: no limit)

Prints one JSON object. Rows are 3.8 kB of half-compressible text, so that a row is about a page.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time

ROW_BYTES = 3_800


def main() -> None:
    """Write."""
    path, seconds, rows, limit = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    database = sqlite3.connect(path, isolation_level=None, timeout=30)
    database.execute("PRAGMA synchronous = NORMAL")
    database.execute("CREATE TABLE IF NOT EXISTS load (id INTEGER PRIMARY KEY, body TEXT)")
    bodies = [os.urandom(ROW_BYTES // 2).hex() for _ in range(64)]
    began, commits, longest = time.perf_counter(), 0, 0.0
    while (now := time.perf_counter()) - began < seconds:
        if limit and commits * rows * 4096 > (now - began) * limit:
            time.sleep(0.0005)
            continue
        database.execute("BEGIN IMMEDIATE")
        for row in range(rows):
            database.execute("INSERT INTO load (body) VALUES (?)", (bodies[(commits + row) % 64],))
        database.execute("COMMIT")
        longest = max(longest, time.perf_counter() - now)
        commits += 1
    elapsed = time.perf_counter() - began
    print(json.dumps({"commits": commits, "seconds": elapsed, "longest_seconds": longest}))


if __name__ == "__main__":
    main()
