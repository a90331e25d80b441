"""The application of the boot scenario: `python -m bench.peers.first_query DATABASE OUTPUT`.

Writes the time of its first answered query (CLOCK_MONOTONIC) and how many rows it saw; stays while its parent does.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from pathlib import Path


def main() -> None:
    """Ask once."""
    parent = os.getppid()
    database, output = sys.argv[1], Path(sys.argv[2])
    rows = sqlite3.connect(database).execute("SELECT coalesce(max(id), 0) FROM filler").fetchone()[0]
    answered = time.monotonic()
    partial = output.with_suffix(".new")
    partial.write_text(f"{answered} {rows}")
    partial.rename(output)
    while os.getppid() == parent:  # the tool is killed, and this must not outlive it
        time.sleep(0.2)


if __name__ == "__main__":
    main()
