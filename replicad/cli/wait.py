"""`replicad wait`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from replicad.cli.control import ask
from replicad.cli.flags import command
from replicad.cli.timeout import DURATION
from replicad.config import Section
from replicad.errors import DaemonUnreachable, NotReady, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from replicad.cli.invocation import Invocation
    from replicad.config import Settings

_LOOK_AGAIN_SECONDS = 0.1
_ASK_SECONDS = 2.0


@command(
    settings=(Section.REPLICA, "control_socket", "ready_file", "log_level", "log_format"),
    examples=("replicad wait --timeout 2m && exec gunicorn app:app", "replicad wait --ready-file /shared/ready"),
    required=(),
)
@click.option(
    "--timeout",
    "timeout_seconds",
    type=DURATION,
    default="5m",
    help="How long to wait; then the exit code is 1. [default: 5m; 0s to 1h; example: --timeout 30s]",
)
def wait(invocation: Invocation, *, timeout_seconds: float) -> None:
    """Return when the running replicad is ready.

    Ready means that the database is in place and being replicated. Asks the control socket. Where none answers
    (another container, another user), the ready file decides when `ready_file` is set.
    """
    settings = invocation.settings
    if settings.control_socket is None and settings.ready_file is None:
        raise UsageError(
            where="control_socket",
            expected="a value, or one of ready_file, database",
            found="nothing",
            hint="Set REPLICAD_DATABASE, REPLICAD_CONTROL_SOCKET or REPLICAD_READY_FILE as for `replicad run`.",
        )
    source = asyncio.run(_wait(settings, timeout_seconds))
    invocation.answer({"ready": True, "source": source}, f"ready ({source})")


async def _wait(settings: Settings, timeout_seconds: float) -> str:
    """Look again and again; return who said so.

    Raises:
        NotReady: nobody did, within the time.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_seconds
    while True:
        source, reason = await _look(settings.control_socket, settings.ready_file)
        if source:
            return source
        if loop.time() >= deadline:
            raise NotReady(
                what="replicad",
                timeout_seconds=timeout_seconds,
                found=reason,
                hint="Is `replicad run` running, with the same database or control socket? Its log says what it does.",
            )
        await asyncio.sleep(min(_LOOK_AGAIN_SECONDS, max(0.0, deadline - loop.time())))


async def _look(socket: Path | None, ready_file: Path | None) -> tuple[str, str]:
    """Return who says that replicad is ready, or "" and why nobody does."""
    reason = "no control socket is configured"
    if socket is not None:
        try:
            status, answer = await ask(socket, "/readyz", timeout_seconds=_ASK_SECONDS)
        except DaemonUnreachable as error:
            reason = f"nobody answers at {socket} ({error.details['found']})"
        else:
            # The daemon knows better than a file that a killed predecessor may have left behind.
            return ("control socket", "") if status < 400 else ("", str(answer.get("reason", "not ready")))  # noqa: PLR2004 - HTTP
    if ready_file is None:
        return "", reason
    if await asyncio.to_thread(ready_file.exists):
        return "ready file", ""
    return "", f"{reason}, and there is no {ready_file}"
