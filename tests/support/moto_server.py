"""A moto S3 server in a process of its own, so that nothing of it (threads, warnings, patches) reaches a test.

    with running_moto() as moto:
        url = moto.new_bucket_url()           # "s3://bucket-…?endpoint=http://127.0.0.1:…&region=us-east-1"
        store = await open_store(url, StoreOptions(access_key_id="test", secret_access_key="test"))

moto checks `If-None-Match` and writes afterwards without holding anything in between, which lets two creates of
one key both win. The child holds a lock around every such write; `locked=False` leaves it out, for a test that
wants to see the race. moto takes any credentials and forgets everything when it ends.

The child ends when its standard input closes, so it never outlives the test run, however that ends.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import secrets
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REGION = "us-east-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test-access", "AWS_SECRET_ACCESS_KEY": "test-secret"}
"""Variables for a program under test; moto takes any, but a client without any does not even try."""

_REPOSITORY = Path(__file__).parents[2]
_CHECK_THEN_ACT = (
    "put_object",
    "delete_object",
    "copy_object",
    "_key_response_post",
    "_bucket_response_delete_keys",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MotoServer:
    """A running server; `endpoint` is its URL without a path."""

    endpoint: str

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1, for a proxy in front."""
        return int(self.endpoint.rpartition(":")[2])

    def new_bucket(self) -> str:
        """Create an empty bucket under a name never used before, and return the name."""
        bucket = f"bucket-{secrets.token_hex(6)}"
        self._request("PUT", f"/{bucket}")
        return bucket

    def new_bucket_url(self, prefix: str = "", *, endpoint: str | None = None) -> str:
        """Return the replica URL of a new bucket; `endpoint` is that of a proxy in front of this server."""
        slash = "/" if prefix else ""
        return f"s3://{self.new_bucket()}{slash}{prefix}?endpoint={endpoint or self.endpoint}&region={REGION}"

    def delete_object(self, bucket: str, key: str) -> None:
        """Delete one object behind the client's back, as a lifecycle rule would; `key` is already URL-quoted."""
        self._request("DELETE", f"/{bucket}/{key}")

    def put_object(self, bucket: str, key: str, body: bytes) -> None:
        """Store one object behind the client's back; `key` is already URL-quoted."""
        self._request("PUT", f"/{bucket}/{key}", body)

    def objects(self, bucket: str, prefix: str = "") -> dict[str, bytes]:
        """Return everything below a prefix, by what follows it in the key; keys of replicad's need no quoting."""
        found: dict[str, bytes] = {}
        after = ""
        while rows := self.keys(bucket, prefix, after):
            found |= {key.removeprefix(prefix): self._request("GET", f"/{bucket}/{key}") for key in rows}
            after = rows[-1]
        return found

    def keys(self, bucket: str, prefix: str = "", after: str = "") -> list[str]:
        """Return the keys below a prefix that sort behind one of them: as many as one listing holds."""
        query = urllib.parse.urlencode({"list-type": 2, "prefix": prefix, "start-after": after})
        return [key.decode() for key in re.findall(rb"<Key>(.*?)</Key>", self._request("GET", f"/{bucket}?{query}"))]

    def open_uploads(self, bucket: str) -> int:
        """Return how many multipart uploads were begun in the bucket and neither completed nor aborted."""
        return self._request("GET", f"/{bucket}?uploads").count(b"<UploadId>")

    def reset(self) -> None:
        """Forget all buckets; takes about 2 ms."""
        self._request("POST", "/moto-api/reset")

    def _request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(  # noqa: S310 - http to this machine
            self.endpoint + path,
            data=body,
            method=method,
            headers={
                "Authorization": f"AWS4-HMAC-SHA256 Credential=test/20260101/{REGION}/s3/aws4_request",
                "Content-Type": "application/octet-stream",  # else moto takes the body for a form, and changes it
            },
        )
        with _DIRECT.open(request, timeout=10) as response:
            answer: bytes = response.read()
            return answer


_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@contextlib.contextmanager
def running_moto(*, locked: bool = True) -> Iterator[MotoServer]:
    """Start a server on a free port of 127.0.0.1, and stop it at the end."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.support.moto_server", "locked" if locked else "plain"]
    environment = {**os.environ, **CREDENTIALS, "AWS_DEFAULT_REGION": REGION}
    child = subprocess.Popen(
        command, cwd=_REPOSITORY, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        line = child.stdout.readline()
        if not line.startswith("http://"):
            raise AssertionError(f"the moto server did not start: status {child.wait(5)}, said {line!r}")
        yield MotoServer(endpoint=line.strip())
    finally:
        child.stdin.close()
        child.stdout.close()
        child.wait(10)


def _lock_writes() -> None:
    from moto.s3.responses import S3Response  # noqa: PLC0415 - only the child imports moto

    lock = threading.RLock()

    def locked(write: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(write)
        def one_at_a_time(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - moto's own types
            with lock:
                return write(*args, **kwargs)

        return one_at_a_time

    for name in _CHECK_THEN_ACT:
        setattr(S3Response, name, locked(getattr(S3Response, name)))


def _serve(mode: str) -> None:
    from moto.server import ThreadedMotoServer  # noqa: PLC0415 - only the child imports moto
    from werkzeug.serving import WSGIRequestHandler  # noqa: PLC0415 - likewise

    if mode == "locked":
        _lock_writes()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    WSGIRequestHandler.disable_nagle_algorithm = True  # else 40 ms an answer
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    print(f"http://{host}:{port}", flush=True)  # noqa: T201 - the parent reads it
    sys.stdin.read()
    os._exit(0)  # its threads are daemons and may be in the middle of an answer


if __name__ == "__main__":
    _serve(sys.argv[1])
