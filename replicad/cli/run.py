"""`replicad run`."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING

import click

from replicad.cli.flags import command
from replicad.config import Section
from replicad.config.mirrors import check_places

if TYPE_CHECKING:
    from replicad.cli.invocation import Invocation


@command(
    settings=tuple(Section),
    examples=(
        "replicad run --database /data/app.db --replica s3://bucket/app -- gunicorn app:app",
        "replicad run --config /etc/replicad.yml",
    ),
)
@click.argument("argv", metavar="[--] [COMMAND]...", nargs=-1, type=click.UNPROCESSED)
def run(invocation: Invocation, *, argv: tuple[str, ...]) -> int:
    """Replicate, in front of an application or beside it.

    Reaches the store, restores the database when the disk has none or an older state, runs the hooks, starts
    COMMAND, and replicates until it ends. Signals are passed on; what was committed is flushed before the end.
    Without COMMAND it runs as a sidecar until it is told to stop.

    The exit code is the application's own (128 + n for a signal), or replicad's: 10 to 14 when it could not
    start, 75 when the final flush failed.
    """
    settings = invocation.settings
    check_places(settings.mirrors, settings.databases)
    invocation.start_logging()
    # Nearly all that is made while modules load stays: looking for garbage in it is a tenth of the start-up time.
    gc.disable()
    # Imported when logging stands: what is imported here logs, and is most of the start-up time.
    from replicad.replicate.run import run as replicate  # noqa: PLC0415

    return asyncio.run(
        replicate(
            settings,
            argv,
            scrubber=invocation.scrubber,
            http_chosen=invocation.chose("http_listen"),
            environment=invocation.environment(),
        )
    )


# Options behind the first word belong to the application, with or without `--`.
run.allow_interspersed_args = False
