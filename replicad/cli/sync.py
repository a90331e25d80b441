"""`replicad sync`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from replicad.cli.control import demand
from replicad.cli.flags import command
from replicad.cli.output import outline
from replicad.cli.timeout import DURATION
from replicad.config import Section

if TYPE_CHECKING:
    from replicad.cli.invocation import Invocation

_MARGIN_SECONDS = 5.0  # the daemon, not this client, is to say what was not durable in time


@command(
    settings=(Section.REPLICA, "control_socket", "log_level", "log_format"),
    examples=("replicad sync --timeout 10s", "replicad sync && echo durable"),
    required=("control_socket",),
)
@click.option(
    "--timeout",
    "timeout_seconds",
    type=DURATION,
    default="60s",
    help="How long to wait; then the exit code is 1. [default: 60s; 0s to 1h; example: --timeout 10s]",
)
def sync(invocation: Invocation, *, timeout_seconds: float) -> None:
    """Return when all that is committed now is durable.

    Speaks to the running `replicad run` over its control socket. From a program:
    `curl --unix-socket /data/app.db-replicad.sock -X POST http://replicad/sync`.
    """
    socket = invocation.control_socket()
    path = f"/sync?timeout_seconds={timeout_seconds}"
    answer = asyncio.run(demand(socket, path, method="POST", timeout_seconds=timeout_seconds + _MARGIN_SECONDS))
    invocation.answer(answer, outline(answer))
