"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
import subprocess
from pathlib import Path

from tests.support.versitygw_server import versitygw_binary

_FOUND = (":!bench/RESULTS.md", ":!bench/plots", ":!bench/results.jsonl")  # what a run changes itself


def revision() -> str:
    """Return which commit is measured, and whether anything was changed since."""
    commit = _git("describe", "--always")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", *_FOUND)
    return f"{commit}-dirty" if changed else commit or "no git"


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False).stdout.strip()


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
