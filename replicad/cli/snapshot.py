"""`replicad snapshot`."""

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


@command(
    settings=(Section.REPLICA, "control_socket", "log_level", "log_format"),
    examples=("replicad snapshot", "replicad snapshot --json --timeout 1h"),
    required=("control_socket",),
)
@click.option(
    "--timeout",
    "timeout_seconds",
    type=DURATION,
    default="10m",
    help="How long to wait; the daemon goes on after that. [default: 10m; 0s to 1h; example: --timeout 1h]",
)
def snapshot(invocation: Invocation, *, timeout_seconds: float) -> None:
    """Have the running replicad take a snapshot now.

    Returns when it is durable. Pieces of the database that the store holds already are not sent again.
    """
    socket = invocation.control_socket()
    answer = asyncio.run(demand(socket, "/snapshot", method="POST", timeout_seconds=timeout_seconds))
    invocation.answer(answer, outline(answer))
