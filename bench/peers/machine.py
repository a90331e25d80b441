"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
from pathlib import Path

from tests.support.versitygw_server import versitygw_binary


def described() -> dict[str, str]:
    """Return what a reader has to know of the machine."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    return {
        "processor": f"{os.cpu_count()} of {model[1] if model else platform.machine()}",
        "memory": f"{int(memory[1]) / 1e6:.0f} GB" if memory else "",
        "kernel": platform.release(),
        "Python": platform.python_version(),
        "S3 server": f"{versitygw_binary().name}, posix back end",
        "the application's SQLite": sqlite3.sqlite_version,
    }
