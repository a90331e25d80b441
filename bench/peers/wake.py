"""What no replication in this language can be faster than: a process that waits for one commit, and sends it.

    python -m bench.peers.wake DATABASE ENDPOINT

It sleeps until the kernel says that the WAL was written to, keeps looking at its index until the commit is there, reads
the new frames, packs them, signs a PUT and sends it on a connection that is open already: with no pin, no order, no
proof, and nothing else to do. It does not keep a core busy in between, as nobody can who shares a machine.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import sys
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

from replicad import zstd
from replicad.store.s3_signature import Credentials, signed_headers

_IN_MODIFY = 2
_EVENTS_BYTES = 4096
_WAL_HEAD_BYTES, _FRAME_BYTES = 32, 4096 + 24
_LAST_FRAME = struct.Struct("=16xI")  # from the beginning of the -shm file
_LEVEL = 3
_CREDENTIALS = Credentials(access_key_id="limit", secret_access_key="limit")  # noqa: S106 - nobody checks it


def main() -> None:
    """Do so for ever."""
    database, host = Path(sys.argv[1]), urlsplit(sys.argv[2]).netloc
    libc = ctypes.CDLL(None)
    notices = libc.inotify_init()
    wal = os.open(f"{database}-wal", os.O_RDONLY)
    index = mmap.mmap(os.open(f"{database}-shm", os.O_RDONLY), 4096, prot=mmap.PROT_READ)
    libc.inotify_add_watch(notices, os.fsencode(f"{database}-wal"), _IN_MODIFY)
    connection = HTTPConnection(host)
    (seen,) = _LAST_FRAME.unpack_from(index)
    while True:
        os.read(notices, _EVENTS_BYTES)
        while (last := _LAST_FRAME.unpack_from(index)[0]) == seen:
            pass
        seen = min(seen, last)
        body = zstd.compress(os.pread(wal, (last - seen) * _FRAME_BYTES, _WAL_HEAD_BYTES + seen * _FRAME_BYTES), _LEVEL)
        seen, now = last, datetime.now(UTC)
        headers = signed_headers(_CREDENTIALS, region="us-east-1", host=host, path="/wake", query="", now=now)
        connection.request("PUT", "/wake", body, headers)
        connection.getresponse().read()


if __name__ == "__main__":
    main()
