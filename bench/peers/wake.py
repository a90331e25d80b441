"""What no replication in this language can be faster than: a process that waits for one commit, and sends it.

    python -m bench.peers.wake DATABASE ENDPOINT

It sleeps until the kernel says that the WAL was written to, keeps looking at its index until the commit is there, reads
the new frames, packs them, signs a PUT and sends it on a connection that is open already: with no pin, no order, no
proof, and nothing else to do. It does not keep a core busy in between, as nobody can who shares a machine.
"""

from __future__ import annotations

import ctypes
import os
import sys
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

from bench.peers.wal_index import WALIndex
from replicad import zstd
from replicad.store.s3_signature import Credentials, signed_headers
from replicad.wal import frame_offset

_IN_MODIFY = 2
_EVENTS_BYTES = 4096
_PAGE_SIZE = 4096
_LEVEL = 1  # of zstd: replicad's default
_CREDENTIALS = Credentials(access_key_id="limit", secret_access_key="limit")  # noqa: S106 - nobody checks it


def main() -> None:
    """Do so for ever."""
    database, host = Path(sys.argv[1]), urlsplit(sys.argv[2]).netloc
    libc = ctypes.CDLL(None)
    notices = libc.inotify_init()
    wal = os.open(f"{database}-wal", os.O_RDONLY)
    index = WALIndex(database)
    libc.inotify_add_watch(notices, os.fsencode(f"{database}-wal"), _IN_MODIFY)
    connection = HTTPConnection(host)
    seen, _ = index.look()
    while True:
        os.read(notices, _EVENTS_BYTES)
        while (last := index.look()[0]) == seen:
            pass
        seen = min(seen, last)
        begin, end = (frame_offset(frame + 1, _PAGE_SIZE) for frame in (seen, last))
        body = zstd.compress(os.pread(wal, end - begin, begin), _LEVEL)
        seen, now = last, datetime.now(UTC)
        headers = signed_headers(_CREDENTIALS, region="us-east-1", host=host, path="/wake", query="", now=now)
        connection.request("PUT", "/wake", body, headers)
        connection.getresponse().read()


if __name__ == "__main__":
    main()
