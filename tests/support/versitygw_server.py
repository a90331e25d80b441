"""versitygw over a folder: an S3 server of its own making, with conditional writes of its own.

It is written in Go and comes as source: the first test that wants it builds one pinned version into a cache folder,
which takes one to two minutes of computing where Go has nothing cached, and is never done twice.

    if (missing := why_no_versitygw()) is not None:
        pytest.skip(missing)
    with running_versitygw(tmp_path) as versitygw:
        store = await open_store(versitygw.new_bucket_url(), StoreOptions(access_key_id=ACCESS_KEY_ID, …))
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

ACCESS_KEY_ID = "versitygw-access-key"
SECRET_ACCESS_KEY = "versitygw-secret-key"  # noqa: S105 - of a server that lives for a test

_VERSION = "v1.8.0"
_PACKAGE = f"github.com/versity/versitygw/cmd/versitygw@{_VERSION}"
_BUILD_SECONDS = 240.0  # more than a test has: who uses this excludes fixtures from the time limit of the tests
_PORT_ATTEMPTS = 5

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class VersitygwServer:
    """A running server; its buckets are folders below the one it serves."""

    endpoint: str
    root: Path

    def new_bucket_url(self) -> str:
        """Return the replica URL of an empty bucket that nobody has used."""
        bucket = f"bucket-{secrets.token_hex(6)}"
        (self.root / bucket).mkdir()
        return f"s3://{bucket}?endpoint={self.endpoint}&region=us-east-1"


def versitygw_binary() -> Path:
    """Return where the binary is, or will be once it is built."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(cache) / "replicad-tests" / f"versitygw-{_VERSION}"


@functools.cache
def why_no_versitygw() -> str | None:
    """Build it unless it is there; return the reason to give when a test that needs it is skipped, or None."""
    binary = versitygw_binary()
    if binary.is_file():
        return None
    go = shutil.which("go")
    if go is None:
        return "no versitygw binary, and no Go to build it with"
    deadline = time.monotonic() + _BUILD_SECONDS
    try:
        binary.parent.mkdir(parents=True, exist_ok=True)
        with _alone(binary.with_suffix(".lock")):
            return None if binary.is_file() else _build(go, binary, deadline)
    except (OSError, TimeoutError) as error:
        return f"versitygw could not be built: {error}"


@contextlib.contextmanager
def running_versitygw(root: Path) -> Iterator[VersitygwServer]:
    """Serve a folder on a free port of 127.0.0.1, until the end of the context."""
    assert why_no_versitygw() is None, "ask why_no_versitygw first"
    for _ in range(_PORT_ATTEMPTS):  # it cannot say which port it took, and one that was free may be gone
        # Only this very server knows the path: nobody else on the same port can be taken for it.
        endpoint, health = f"http://127.0.0.1:{_free_port()}", f"/{secrets.token_hex(8)}"
        child = _start(root, endpoint, health)
        try:
            if _is_up(child, endpoint + health):
                yield VersitygwServer(endpoint=endpoint, root=root)
                return
        finally:
            child.kill()
            child.wait(10)
    raise AssertionError(f"versitygw did not start, see {root.parent / 'versitygw.log'}")


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other test processes from building at the same time."""

    def have() -> bool:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    with path.open("w") as lock:
        wait_until(have, _BUILD_SECONDS)
        yield


def _build(go: str, binary: Path, deadline: float) -> str | None:
    with tempfile.TemporaryDirectory(dir=binary.parent) as folder:
        # Of Go itself too only what is installed: a newer one would be downloaded otherwise.
        environment = {**os.environ, "GOBIN": folder, "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
        builder = subprocess.Popen(
            [go, "install", "-gcflags=all=-N -l", "-ldflags=-s -w", _PACKAGE],  # not optimised: a quarter less to do
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            said, _ = builder.communicate(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(builder.pid, signal.SIGKILL)  # the compilers too; what they have done is cached
            builder.communicate()
            return f"building versitygw took longer than {_BUILD_SECONDS:g} s; the next run goes on from there"
        if builder.returncode:
            return f"`go install {_PACKAGE}` failed: {' '.join(said.split())[-300:]}"
        (Path(folder) / "versitygw").rename(binary)
    return None


def _start(root: Path, endpoint: str, health: str) -> subprocess.Popen[bytes]:
    command = [str(versitygw_binary()), "--port", endpoint.removeprefix("http://"), "--health", health]
    command += ["--quiet", "--keep-alive", "posix", str(root)]
    environment = {**os.environ, "ROOT_ACCESS_KEY": ACCESS_KEY_ID, "ROOT_SECRET_KEY": SECRET_ACCESS_KEY}
    with (root.parent / "versitygw.log").open("ab") as log:
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _is_up(child: subprocess.Popen[bytes], url: str) -> bool:
    """Wait until the server answers, or has ended."""
    wait_until(lambda: child.poll() is not None or _answers(url))
    return child.poll() is None


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def _answers(url: str) -> bool:
    try:
        with _DIRECT.open(url, timeout=1):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
