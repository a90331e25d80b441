"""The real daemon in a process of its own, and the few requests that tests make of it.

daemon = DaemonProcess(database, replica_url, folder)
daemon.start()                       # a sidecar; or daemon.start(command): the parent of an application
daemon.sync(); daemon.kill(); daemon.start(); daemon.stop()
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.memory import most_resident_bytes
from tests.support.moto_server import CREDENTIALS
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_REPOSITORY = Path(__file__).parents[2]
_START_SECONDS = 60.0
_STOP_SECONDS = 60.0
_REQUEST_SECONDS = 60.0
_EVENT_SECONDS = 30.0

BRISK = {"handover_poll_interval": "400ms", "handover_timeout": "1500ms"}
"""How soon an owner that is silent counts as gone: at the defaults a start after a crash waits for 20 s.

Below this a busy machine takes the living for dead.
"""


class DaemonProcess:
    """`replicad run` for one database; its log lines gather in one file over all its lives."""

    def __init__(self, database: Path, replica: str, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        """`folder` is for the log, the socket and the ready file; `settings` are REPLICAD_* without the prefix."""
        self.database = database
        self.log = folder / "replicad.log"
        self.ready_file = folder / "ready"
        self.socket = folder / "control.sock"
        self.environment = {
            **os.environ,
            **CREDENTIALS,
            "REPLICAD_DATABASE": str(database),
            "REPLICAD_REPLICA": replica,
            "REPLICAD_HTTP_LISTEN": "off",
            "REPLICAD_CONTROL_SOCKET": str(self.socket),
            "REPLICAD_READY_FILE": str(self.ready_file),
            "REPLICAD_LOG_FORMAT": "json",
            **{f"REPLICAD_{name.upper()}": value for name, value in (settings or {}).items()},
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._begin = 0  # of what the present life has logged

    @property
    def ended(self) -> bool:
        """Whether it has ended by itself; `wait` returns its status."""
        assert self._process is not None
        return self._process.poll() is not None

    @property
    def pid(self) -> int:
        """The process id of the one that runs."""
        assert self._process is not None
        return self._process.pid

    def most_resident_bytes(self) -> int:
        """Return the most memory that it has had."""
        return most_resident_bytes(self.pid)

    def start(self, command: Sequence[str] = (), *, arguments: Sequence[str] = ("-m", "replicad", "run")) -> None:
        """Start it, and wait until it is ready; `arguments` start another program in its place."""
        self.launch(command, arguments=arguments)
        wait_until(self._is_ready, _START_SECONDS)

    def launch(self, command: Sequence[str] = (), *, arguments: Sequence[str] = ("-m", "replicad", "run")) -> None:
        """Start it, and wait for nothing."""
        self.ready_file.unlink(missing_ok=True)
        self._begin = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *arguments, *(["--", *command] if command else [])],
                cwd=_REPOSITORY,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stderr=log,
            )

    def send(self, signum: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(signum)

    def kill(self) -> None:
        """End it wherever it is."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_STOP_SECONDS)
            self._process = None

    def stop(self) -> int:
        """End it in order; return its exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Wait until it has ended by itself; return its exit status."""
        assert self._process is not None
        try:
            return self._process.wait(_STOP_SECONDS)
        finally:
            self.kill()

    def sync(self) -> int:
        """Return the transaction up to which all that was committed at the call is durable."""
        return int(self.request("POST", "/sync?timeout_seconds=50")["databases"][0]["durable_txid"])

    def snapshot(self) -> int:
        """Have a snapshot stored; return its transaction."""
        return int(self.request("POST", "/snapshot")["databases"][0]["txid"])

    def request(self, method: str, path: str, *, timeout_seconds: float = _REQUEST_SECONDS) -> dict[str, Any]:
        """Make a request over the control socket; return its answer, which must not be an error.

        Raises:
            TimeoutError: there was none.
        """
        status, body = self._ask(method, path, timeout_seconds)
        answer: dict[str, Any] = json.loads(body)
        assert status == http.HTTPStatus.OK, answer
        return answer

    def page(self, path: str) -> str:
        """Return what is served under a path, as it is."""
        return self._ask("GET", path, _REQUEST_SECONDS)[1].decode()

    def _ask(self, method: str, path: str, timeout_seconds: float) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("replicad")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(timeout_seconds)
        try:
            connection.sock.connect(str(self.socket))
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def events(self) -> list[dict[str, object]]:
        """Return all log lines so far."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [json.loads(line) for line in lines if line.startswith("{")]

    def lines(self) -> str:
        """Return what the present life has written to standard error, whatever it is."""
        return self.log.read_bytes()[self._begin :].decode(errors="replace") if self.log.exists() else ""

    def found(self, event: str, **fields: object) -> list[dict[str, object]]:
        """Return the log lines of the present life with this event and these fields."""
        lines = [json.loads(line) for line in self.lines().splitlines() if line.startswith("{") and line.endswith("}")]
        return [line for line in lines if line["event"] == event and fields.items() <= line.items()]

    def until(self, event: str, *, count: int = 1, **fields: object) -> dict[str, object]:
        """Wait until the present life has logged an event with these fields so many times; return the last line."""
        return wait_until(lambda: self.found(event, **fields)[count - 1 :], _EVENT_SECONDS)[-1]

    def status(self) -> dict[str, Any]:
        """Return what it says of its database."""
        found: dict[str, Any] = self.request("GET", "/status")["databases"][0]
        return found

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"it ended with status {self._process.returncode}, see {self.log}"
        return self.ready_file.exists()
