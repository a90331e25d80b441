"""Measuring a process from outside: CPU seconds and memory, read from /proc."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PATIENCE_SECONDS = 60.0


def installed(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process that finds its bytecode compiled, as an installed package's is.

    A checkout may be one whose environment keeps Python from writing any: each start would compile replicad anew.
    """
    cache = Path(tempfile.gettempdir()) / f"replicad-bench-bytecode-{os.getuid()}"
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(cache), **environment}


def cpu_seconds(pid: int) -> float:
    """Return the CPU time a process has used, all threads, to the nanosecond as the scheduler counts it."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def memory_bytes(pid: int, what: str) -> int:
    """Return VmRSS (now) or VmHWM (the most so far) of a process."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0


@dataclass(slots=True)
class Daemon:
    """`replicad run` as a sidecar of one database, its log lines read as they come."""

    database: Path
    replica: str
    environment: Mapping[str, str] = field(default_factory=dict)
    options: Sequence[str] = ()
    process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "replicad", "run", "--log-format", "json", "--log-level", "info"]
        command += ["--database", str(self.database), "--replica", self.replica, *self.options]
        self.process = subprocess.Popen(command, env=installed(self.environment), stderr=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.communicate(timeout=_PATIENCE_SECONDS)

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process is not None  # noqa: S101 - only used inside the with block
        return self.process.pid

    def until(self, event: str) -> dict[str, Any]:
        """Read log lines up to one of this event, and return it."""
        assert self.process is not None  # noqa: S101 - likewise
        assert self.process.stderr is not None  # noqa: S101 - likewise
        for line in self.process.stderr:
            found: dict[str, Any] = json.loads(line)
            if found["event"] == event:
                return found
        raise RuntimeError(f"the daemon ended before it said {event}")

    def sync(self) -> float:
        """Ask for everything to be durable; return how many seconds that took."""
        began = time.perf_counter()
        command = [sys.executable, "-m", "replicad", "sync", "--control-socket", f"{self.database}-replicad.sock"]
        subprocess.run([*command, "--timeout", "60s"], check=True, capture_output=True)
        return time.perf_counter() - began
