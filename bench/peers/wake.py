"""What no replication can be faster than: a process that does nothing but wait for a WAL to grow, and ask then.

    python -m bench.peers.wake WAL ENDPOINT

It keeps a core busy, reads no frame, and sends one request without a body, on a connection that is open already.
"""

from __future__ import annotations

import os
import sys
import time
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit


def main() -> None:
    """Do so for ever."""
    wal, host = Path(sys.argv[1]), urlsplit(sys.argv[2]).netloc
    while not wal.exists():
        time.sleep(0.001)
    connection = HTTPConnection(host)
    with wal.open("rb") as opened:
        seen = os.fstat(opened.fileno()).st_size
        while True:
            while (size := os.fstat(opened.fileno()).st_size) == seen:
                pass
            seen = size
            connection.request("GET", "/wake")
            connection.getresponse().read()


if __name__ == "__main__":
    main()
