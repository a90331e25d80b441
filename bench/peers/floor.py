"""What no restore can do without, done by the leanest program there is: the same objects, the same wire, the same disk.

    python -m bench.peers.floor ENDPOINT BUCKET REGION CONNECTIONS KEYS_FILE [OUTPUT]

Fetches the keys in KEYS_FILE, one a line, and throws them away. With OUTPUT it unpacks each that is a zstd frame and
writes them one behind the other, with an fsync at the end: a restore without a plan, an order, a proof.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

import zstandard

from replicad import zstd
from replicad.store.s3_signature import Credentials, signed_headers

if TYPE_CHECKING:
    from collections.abc import Iterator

_FRAME = b"\x28\xb5\x2f\xfd"


class Sink:
    """Where objects go: nowhere, or unpacked into a file, past the page cache."""

    def __init__(self, output: str | None) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_DIRECT
        self._descriptor = -1 if output is None else os.open(output, flags, 0o600)
        self._offset = 0
        self._lock = threading.Lock()
        self._room = threading.local()

    def take(self, body: bytes) -> None:
        """Take one object."""
        if self._descriptor < 0 or not body.startswith(_FRAME):
            return
        raw = self._buffer(zstandard.frame_content_size(body))
        zstd.decompress_into(raw, body, what="an object", where="frame")
        with self._lock:
            offset, self._offset = self._offset, self._offset + len(raw)
        os.pwrite(self._descriptor, raw, offset)

    def close(self) -> None:
        """Wait until the disk has it all."""
        if self._descriptor >= 0:
            os.fsync(self._descriptor)

    def _buffer(self, size_bytes: int) -> memoryview:
        """Return this thread's buffer, which begins at a page of memory."""
        held: mmap.mmap | None = getattr(self._room, "held", None)
        if held is None or len(held) < size_bytes:
            held = self._room.held = mmap.mmap(-1, size_bytes)
        return memoryview(held)[:size_bytes]


def fetch(endpoint: str, bucket: str, region: str, keys: Iterator[str], sink: Sink) -> None:
    """Fetch keys until there are none left, on one connection."""
    host = urlsplit(endpoint).netloc
    credentials = Credentials(
        access_key_id=os.environ["AWS_ACCESS_KEY_ID"], secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"]
    )
    connection = HTTPConnection(host)
    for key in keys:
        path = f"/{bucket}/{quote(key)}"
        headers = signed_headers(credentials, region=region, host=host, path=path, query="", now=datetime.now(UTC))
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{key}: {answer.status}")
        sink.take(body)


def main() -> None:
    """Do as the command line says."""
    endpoint, bucket, region, connections, keys_file, *output = sys.argv[1:]
    keys = iter(Path(keys_file).read_text().splitlines())
    sink = Sink(output[0] if output else None)
    threads = [
        threading.Thread(target=fetch, args=(endpoint, bucket, region, keys, sink)) for _ in range(int(connections))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sink.close()


if __name__ == "__main__":
    main()
