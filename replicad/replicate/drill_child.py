"""The drill as a process of its own: `replicad verify --level drill`, at the lowest priority, with memory of its own.

It is given the settings as the daemon has them, in its environment: what is secret never stands in a command line.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import msgspec

from replicad.document import decoder_of
from replicad.host.attached import run_attached
from replicad.replicate.drill_outcome import DrillOutcome, outcome_of, unrun

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicad.config.model import DatabaseSettings, Settings

COMMAND = (sys.executable, "-m", "replicad", "verify", "--level", "drill", "--attached", "--json")
_FOR_ALL_DATABASES = ("REPLICAD_DATABASES",)
_ANSWERS = (0, 2)


def child_environment(environment: Mapping[str, str], settings: Settings, database: DatabaseSettings) -> dict[str, str]:
    """Return the variables with which the child reads the settings of this one database.

    Args:
        environment: under which another replicad reads the daemon's settings.
        settings: the daemon's.
        database: the one that is drilled.
    """
    chosen = {name: text for name, text in environment.items() if name not in _FOR_ALL_DATABASES}
    chosen |= {
        "REPLICAD_DATABASE": str(database.path),
        "REPLICAD_NAME": database.name,
        "REPLICAD_REPLICA": database.replica,
        "REPLICAD_LOG_LEVEL": "warning",
        "REPLICAD_LOG_FORMAT": "json",
    }
    if settings.control_socket is not None:
        chosen["REPLICAD_CONTROL_SOCKET"] = str(settings.control_socket)
    return chosen


async def run_child(environment: Mapping[str, str], *, timeout_seconds: float) -> DrillOutcome:
    """Drill, and return what it came to; whatever keeps it from running is an outcome as well."""
    try:
        async with asyncio.timeout(timeout_seconds):
            ended = await run_attached(COMMAND, environment)
    except TimeoutError:
        return unrun("Timeout", f"it took longer than drill_timeout ({timeout_seconds:g} s)")
    except OSError as error:
        return unrun("OSError", f"it could not be started: {error}")
    if ended.status in _ANSWERS and ended.output:
        try:
            return outcome_of(ended.output)
        except msgspec.DecodeError as error:
            return unrun("DecodeError", f"its answer cannot be read: {error}")
    return _failed(ended.status, ended.errors)


def _failed(status: int, errors: bytes) -> DrillOutcome:
    """Return what the last line of standard error says."""
    lines = errors.decode(errors="replace").strip().splitlines()
    try:
        told = decoder_of(_Told).decode(lines[-1] if lines else "")
    except msgspec.DecodeError:
        return unrun("Ended", f"it ended with status {status}")
    return unrun(told.error, told.message)


class _Told(msgspec.Struct):
    """An error as the command line writes it with --json."""

    error: str
    message: str
