"""The demonstration's container: a disk folder, `replicad run` with the application below it, and their end."""

from __future__ import annotations

import http.client
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import demo_app

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.demo_app import Row

START_SECONDS = 20.0
COMMAND_SECONDS = 20.0
STOP_SECONDS = 15.0
MARK = "DEMO_CONTAINER"  # in the environment of every process of one container


class Different(Exception):
    """What the demonstration found is not what it was promised."""


def replicad_program() -> str:
    """Return the program installed beside this interpreter."""
    return str(Path(sys.executable).with_name("replicad"))


def free_port() -> int:
    """Return a port of loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def members(mark: str) -> list[int]:
    """Return the ids of the running processes that carry a mark in their environment: a container's own.

    Parentage would miss an application whose replicad has died.
    """
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # gone meanwhile, or another user's
            marked = mark.encode() in (process / "environ").read_bytes().split(b"\0")
            if marked and (process / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
                found.append(int(process.name))
    return found


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Look every 20 ms until a condition holds; raise Different after the given time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise Different(f"waited {seconds:g} s in vain for {what}")
        time.sleep(0.02)


@dataclass(kw_only=True)
class Container:
    """What a platform runs and throws away: a disk folder, `replicad run`, and the application below it."""

    root: Path
    disk: Path = field(init=False)
    bucket: Path = field(init=False)
    database: Path = field(init=False)
    log: Path = field(init=False)
    port: int = field(default_factory=free_port)
    metrics_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.disk, self.bucket, self.log = self.root / "disk", self.root / "bucket", self.root / "replicad.log"
        self.database = self.disk / "app.db"
        self.bucket.mkdir()

    @property
    def environment(self) -> dict[str, str]:
        """The variables of the container: the reader's own settings of replicad play no part."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("REPLICAD_")}
        return inherited | {
            "REPLICAD_DATABASE": str(self.database),
            "REPLICAD_REPLICA": self.bucket.as_uri(),
            "REPLICAD_CONTROL_SOCKET": str(self.disk / "replicad.sock"),
            "REPLICAD_HTTP_LISTEN": f"127.0.0.1:{self.metrics_port}",
            # A killed owner is waited for before another disk may take over: 2 s with this, 20 s without.
            "REPLICAD_HANDOVER_POLL_INTERVAL": "500ms",
            MARK: str(self.root),
        }

    def start(self) -> float:
        """Start on whatever the disk holds; return the seconds until the application answered."""
        self.disk.mkdir(exist_ok=True)
        began = time.monotonic()
        app = [sys.executable, str(Path(demo_app.__file__)), str(self.database), str(self.port)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [replicad_program(), "run", "--", *app],
                env=self.environment,
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_for(self._answers, START_SECONDS, "the application to answer")
        return time.monotonic() - began

    def _answers(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            raise Different(f"`replicad run` ended with status {self.process.returncode} before it was ready")
        with suppress(OSError, http.client.HTTPException):
            return self.request("GET", "/health")[0] == 204
        return False

    def request(self, method: str, path: str, value: object = None) -> tuple[int, Any]:
        """Send one HTTP request to the application; return its status and the decoded body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=COMMAND_SECONDS)
        try:
            connection.request(method, path, None if value is None else json.dumps(value))
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        return answer.status, json.loads(body) if body else None

    def notes(self) -> list[Row]:
        """Return the rows the application shows."""
        return [tuple(row) for row in self.request("GET", "/notes")[1]]

    def write(self, count: int, topic: str) -> None:
        """Write notes one by one, each acknowledged before the next."""
        for number in range(1, count + 1):
            status, _ = self.request("POST", "/notes", {"text": f"{topic} {number} of {count}"})
            if status != 201:
                raise Different(f"POST /notes was answered with {status}")

    def replicad(self, *arguments: str) -> str:
        """Run a replicad command to its end, as a user would in this container; return its output."""
        done = subprocess.run(
            [replicad_program(), *arguments],
            env=self.environment,
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            command, output = shlex.join(arguments), done.stdout + done.stderr
            raise Different(f"`replicad {command}` ended with status {done.returncode}:\n{output}")
        return done.stdout

    def kill(self) -> int:
        """SIGKILL replicad and everything below it; return how many processes that were."""
        killed: set[int] = set()

        def gone() -> bool:
            remaining = members(f"{MARK}={self.root}")
            for pid in remaining:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            killed.update(remaining)
            if self.process is not None:
                self.process.poll()
            return not remaining

        wait_for(gone, STOP_SECONDS, "the killed processes to be gone")
        self.process = None
        return len(killed)

    def stop(self) -> int:
        """Ask politely, as a platform does; return the exit status of `replicad run`."""
        if self.process is None:
            raise Different("nothing runs")
        self.process.terminate()
        status = self.process.wait(STOP_SECONDS)
        self.process = None
        return status
