"""Which SQLite libraries are about: one with the WAL-reset bug can corrupt a database that another checkpoints."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import sqlite3
import sys
from typing import TYPE_CHECKING

import apsw

from replicad.cli.checks.check import Check, fail, ok, warn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FIRST_VULNERABLE = (3, 7, 0)
FIXED = (3, 51, 3)
FIXED_IN_BRANCHES = ((3, 50, 7), (3, 44, 6))
RANGE = "3.7.0 to 3.51.2, without 3.50.7 and 3.44.6"

_ASK_SECONDS = 5.0
_VERSION = re.compile(r"\b3\.\d+\.\d+\b")
_PYTHON_CODE = "import sqlite3; print(sqlite3.sqlite_version)"


def is_vulnerable(version: str) -> bool:
    """Return whether a SQLite of this version ("3.45.1") carries the WAL-reset bug (sqlite.org/wal.html)."""
    number = tuple(int(part) for part in version.split(".")[:3])
    if number < FIRST_VULNERABLE or number >= FIXED:
        return False
    return not any(number[:2] == branch[:2] and number >= branch for branch in FIXED_IN_BRANCHES)


async def check_sqlite() -> list[Check]:
    """Return the checks of replicad's own SQLite and of those that an application here would find."""
    own = apsw.sqlite_lib_version()
    found = {"this Python": sqlite3.sqlite_version}
    for name, command in (("python3", ("-c", _PYTHON_CODE)), ("sqlite3", ("--version",))):
        program = shutil.which(name)
        if program is None or (name == "python3" and program == sys.executable):
            continue
        version = await _ask(program, command)
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


async def _ask(program: str, arguments: Sequence[str]) -> str | None:
    """Return the version a program prints, or None when it does not."""
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return None
    try:
        printed, _ = await asyncio.wait_for(process.communicate(), _ASK_SECONDS)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        return None
    match = _VERSION.search(printed.decode(errors="replace"))
    return match[0] if match else None
