"""A program of our own that lives no longer than we do: it ends when its standard input does.

The pipe is closed by the kernel when this process ends, however it ends. The child stays in our process group, so that
the reaper leaves its status to asyncio, and Ctrl-C reaches both.
"""

from __future__ import annotations

import asyncio
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_END_SECONDS = 1.0  # a stop has a grace period of a few seconds in all


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How it ended, and what it wrote."""

    status: int  # below 0: the signal that ended it
    output: bytes
    errors: bytes


async def run_attached(command: Sequence[str], environment: Mapping[str, str]) -> Ended:
    """Run a program to its end, and return what it wrote; all of that is held in memory.

    A caller that is cancelled does not get away while the child runs: it is told to end, and killed a second later.

    Raises:
        OSError: it could not be started.
    """
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    if process.stdin is None or process.stdout is None or process.stderr is None:
        raise AssertionError
    try:
        output, errors, status = await asyncio.gather(process.stdout.read(), process.stderr.read(), process.wait())
    finally:
        process.stdin.close()
        if process.returncode is None:
            await _end(process)
    return Ended(status=status, output=output, errors=errors)


async def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(_END_SECONDS):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
