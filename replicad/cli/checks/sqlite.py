"""Which SQLite libraries are about: one with the WAL-reset bug can corrupt a database that another checkpoints."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import apsw

from replicad.cli.checks.check import Check, fail, ok, warn
from replicad.sqlite.versions import RANGE, is_vulnerable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ASK_SECONDS = 5.0
_VERSION = re.compile(r"\b3\.\d+\.\d+\b")
_PYTHON_CODE = "import sqlite3; print(sqlite3.sqlite_version)"


def check_sqlite() -> list[Check]:
    """Return the checks of replicad's own SQLite and of those that an application here would find. Blocks."""
    own = apsw.sqlite_lib_version()
    found = {"this Python": sqlite3.sqlite_version}
    for name, command in (("python3", ("-c", _PYTHON_CODE)), ("sqlite3", ("--version",))):
        program = shutil.which(name)
        if program is None or (name == "python3" and program == sys.executable):
            continue
        version = _ask(program, command)
        if version is not None:
            found[f"{name} on PATH"] = version
    return [
        fail("replicad's own", f"{own} carries the WAL-reset bug", "Upgrade apsw.")
        if is_vulnerable(own)
        else ok("replicad's own", f"{own}, without the WAL-reset bug"),
        judge(found),
    ]


def judge(found: Mapping[str, str]) -> Check:
    """Return the check of the versions that applications may use, by where they were found."""
    name = "applications'"
    listed = ", ".join(f"{where}: {version}" for where, version in found.items())
    if not any(is_vulnerable(version) for version in found.values()):
        return ok(name, f"{listed}; without the WAL-reset bug")
    return warn(
        name,
        f"{listed}; the WAL-reset bug is in {RANGE}",
        "If the application uses it, upgrade it to 3.51.3, 3.50.7 or 3.44.6: with the bug, a checkpoint beside a busy "
        "writer can corrupt the database. replicad's own checkpoints hold the write lock, so they do not set it off.",
    )


def _ask(program: str, arguments: Sequence[str]) -> str | None:
    """Return the version a program prints, or None when it does not."""
    try:
        ended = subprocess.run(  # noqa: S603 - found on PATH, called with constants
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_ASK_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = _VERSION.search(ended.stdout.decode(errors="replace"))
    return match[0] if match else None
