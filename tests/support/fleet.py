"""Several instances of one application, each with a disk and a network of its own, and the one bucket they share.

with Fleet(folder, moto) as fleet:
    old, new = fleet.instance("old"), fleet.instance("new")
    old.start(); old.write(1)
    new.start()                               # healthy when this returns: it has taken over
    assert fleet.rows() == [1]                # in the newest state that the bucket restores to
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from tests.support import daemon
from tests.support.clients import Line
from tests.support.daemon import DaemonProcess
from tests.support.fault_proxy import Cut, FaultProxy, Rule, running_in_thread
from tests.support.oracle import StoredHistory
from tests.support.scene import ask, has_ended
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.support.moto_server import MotoServer

BRISK = daemon.BRISK | {
    "sync_interval": "100ms",
    "connect_timeout": "1s",
    "request_timeout": "2s",
    "retry_timeout": "100ms",
}
"""What takes half a minute in earnest takes a second or two."""

PATIENCE_SECONDS = 10.0
"""Until writers are let in again who were kept out for nothing: BRISK's timeout, and a busy machine's delays."""

_HEALTHY_SECONDS = 40.0


class Instance:
    """One instance: `replicad run -- application` on a disk of its own, behind a network of its own."""

    def __init__(self, name: str, folder: Path, replica: str, proxy: FaultProxy, settings: Mapping[str, str]) -> None:
        self.name = name
        self.proxy = proxy
        self.disk = folder / "disk"
        self.disk.mkdir(parents=True)
        self.database = self.disk / "app.db"
        self._port_file = folder / "port"
        self.daemon = DaemonProcess(self.database, replica, folder, settings)

    # --- life --------------------------------------------------------------------------------------

    def launch(self) -> None:
        """Start it, and wait for nothing."""
        self._port_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "tests.support.web_application", str(self.database), str(self._port_file)]
        self.daemon.launch(command)

    def start(self) -> float:
        """Start it, and wait until it is healthy; return how many seconds that took."""
        began = time.monotonic()
        self.launch()
        self.until_healthy()
        return time.monotonic() - began

    def own(self, *numbers: int) -> None:
        """Start it as the first one, and have rows committed and stored."""
        self.start()
        self.write(*numbers)
        self.daemon.sync()

    def until_healthy(self) -> None:
        """Wait until its application answers."""
        wait_until(lambda: self.is_healthy or self.daemon.ended, _HEALTHY_SECONDS)
        assert self.is_healthy, f"{self.name} has ended"

    @property
    def is_healthy(self) -> bool:
        """Whether its application answers."""
        return self._port_file.exists() and self._ask("GET", "/")

    @property
    def port(self) -> int:
        """Where its application listens.

        Raises:
            OSError: it does not, yet.
        """
        return int(self._port_file.read_text())

    def stop(self) -> int:
        """Stop it as a platform does; return its exit status."""
        return self.daemon.stop()

    def kill(self) -> None:
        """End it wherever it is, as a machine ends."""
        apps = self._applications()
        self.daemon.kill()
        for pid in apps:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
            wait_until(partial(has_ended, pid))

    def signal_all(self, signum: signal.Signals) -> None:
        """Send a signal to replicad and to its application, past replicad."""
        self.daemon.send(signum)
        for pid in self._applications():
            os.killpg(pid, signum)

    def _applications(self) -> list[int]:
        return [pid for line in self.daemon.found("app_started") if not has_ended(pid := int(str(line["pid"])))]

    def cut_off(self) -> Rule:
        """Let no request through to the bucket, until the rules of its proxy are cleared."""
        rule = Rule(cut=Cut.BEFORE)
        self.proxy.rules.append(rule)
        return rule

    # --- its application ---------------------------------------------------------------------------

    def write(self, *numbers: int) -> None:
        """Have the application commit a row for each number, which must succeed."""
        for number in numbers:
            assert self._ask("POST", f"/{number}"), f"{self.name} refused the write of {number}"

    def is_writable(self, number: int) -> bool:
        """Try to commit a row; return whether it was."""
        return self._ask("POST", f"/{number}")

    def rows(self) -> list[int]:
        """Return the rows that are in its database, which may be in use."""
        with contextlib.closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
            return [number for (number,) in connection.execute("SELECT n FROM t ORDER BY n")]

    def _ask(self, method: str, path: str) -> bool:
        with Line(self) as line:
            return line.ask(method, path)

    # --- what it says ------------------------------------------------------------------------------

    @property
    def ownership(self) -> str:
        """What it is to the database, by its own word."""
        return str(self.daemon.status()["ownership"])

    def metric(self, name: str) -> float:
        """Return the sum of a metric's samples."""
        lines = [line for line in self.daemon.page("/metrics").splitlines() if line.split("{")[0].split(" ")[0] == name]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


class Fleet:
    """Use as a context manager: it leaves no process behind."""

    def __init__(
        self, folder: Path, server: MotoServer, settings: Mapping[str, str] = BRISK, *, shown: bool = True
    ) -> None:
        """`settings` are each instance's, as for DaemonProcess; `shown`: print the logs at the end."""
        self._folder = folder
        self._settings = settings
        self._shown = shown
        self._server = server
        self.bucket = server.new_bucket()
        self._stack = contextlib.ExitStack()
        self.instances: list[Instance] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for instance in self.instances:
            instance.kill()
            if self._shown and instance.daemon.log.exists():
                print(f"--- {instance.name}\n{instance.daemon.log.read_text()[-5_000:]}")  # noqa: T201 - shown on failure
        self._stack.close()

    def instance(self, name: str, **settings: str) -> Instance:
        """Return a new one, which is not started yet; its disk is empty."""
        proxy = self._stack.enter_context(running_in_thread(FaultProxy("127.0.0.1", self._server.port)))
        replica = f"s3://{self.bucket}?endpoint={proxy.endpoint}&region=us-east-1"
        instance = Instance(name, self._folder / name, replica, proxy, {**self._settings, **settings})
        self.instances.append(instance)
        return instance

    def objects(self, prefix: str = "") -> dict[str, bytes]:
        """Return all that is stored below a prefix, by key."""
        found = self._server.objects(self.bucket, f"app.db/{prefix}")
        return {prefix + key: body for key, body in found.items()}

    def has(self, key: str) -> bool:
        """Return whether something is stored under this key."""
        asked = any(instance.proxy.count("PUT", key) for instance in self.instances)  # else the server need not be
        return asked and bool(self._server.keys(self.bucket, f"app.db/{key}"))

    def history(self) -> StoredHistory:
        """Return what is stored now, each state proven as it is read."""
        return StoredHistory(self.objects())

    def rows(self) -> Any:  # noqa: ANN401 - as `ask`
        """Return the rows of the newest state that the bucket restores to."""
        return ask(bytes(self.history().newest()[1].image), "SELECT n FROM t ORDER BY n")
