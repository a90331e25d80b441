"""`replicad verify`."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import click

from replicad.cli.budget import LONG_DURATION, SHARE, SIZE
from replicad.cli.flags import command
from replicad.config import Section

if TYPE_CHECKING:
    from replicad.cli.invocation import Invocation

_BEHIND_ALL = 19  # nice(2)'s lowest priority


@command(
    settings=(
        Section.REPLICA,
        Section.RESTORE,
        Section.STORE,
        "drill_folder",
        "assertions",
        "assertion_timeout",
        "control_socket",
        "log_level",
        "log_format",
    ),
    examples=(
        "replicad verify",
        "replicad verify --level bodies --share 10%",
        "replicad verify --level bodies --max-bytes 1GiB --max-time 5m",
        "replicad verify --level drill --assertions 'SELECT count(*) > 0 FROM users'",
        "replicad verify --json | jq '.databases[].findings[].key'",
    ),
    required=("replica",),
)
@click.option(
    "--level",
    type=click.Choice(["listing", "bodies", "drill"]),
    default="listing",
    help="How far to look: listing (is all there that a restore needs), bodies (fetch the objects and check their "
    "hashes), drill (restore into a temporary folder, checksum, integrity_check, assertions). [default: listing; "
    "example: --level bodies]",
)
@click.option(
    "--share",
    type=SHARE,
    metavar="PERCENT",
    help="With bodies: read so much of the stored bytes, going on where the last limited run stopped, so that ten runs "
    "of 10% have read everything once. [default: all; example: --share 10%]",
)
@click.option(
    "--max-bytes",
    type=SIZE,
    metavar="SIZE",
    help="With bodies: read no more than that, going on likewise. [default: no limit; example: --max-bytes 1GiB]",
)
@click.option(
    "--max-time",
    type=LONG_DURATION,
    metavar="DURATION",
    help="With bodies: begin no object after that time, going on likewise. [default: no limit; example: --max-time 5m]",
)
@click.option(
    "--resume",
    metavar="TOKEN",
    help="Go on where the run stopped that printed this token. [default: what the last limited run left beside the "
    "database, where that is; example: --resume eyJ2ZXJz...]",
)
@click.option("--attached", is_flag=True, hidden=True, help="Step back behind all else; end when standard input does.")
def verify(invocation: Invocation, *, level: str, attached: bool, **options: object) -> int:
    """Check that what is stored can be restored.

    Says of each database that it is OK, NOT YET UPLOADED, DAMAGED (objects are not what they should be) or LOST
    (objects are missing, and instants are gone with them). The last two name the objects, the instants that cannot be
    restored because of them, and whether another way leads to what they are for; the exit code is 2. A drill that
    fails ends with 2 as well.

    A local database that is ahead of the store is NOT YET UPLOADED, where that can be told: from the running replicad,
    or from the files beside the database. Runs limited by --share, --max-bytes or --max-time read the objects in the
    order of their keys, each once a pass; where the next one goes on is kept beside the database (-replicad-verify)
    when the database is on this disk, and printed as a token.
    """
    invocation.start_logging(answers_itself=True)
    if attached:
        os.nice(_BEHIND_ALL)  # before there are threads: they inherit it
    # Imported here: `replicad verify --help` needs neither store nor segments.
    from replicad.cli.verifying import Order, carry_out, until_detached  # noqa: PLC0415

    order = Order(level=level, **options)  # type: ignore[arg-type]  # click has checked the flags
    order.check()
    work = carry_out(invocation, order)
    answer, text, exit_code = asyncio.run(until_detached(work) if attached else work)
    invocation.answer(answer, text)
    return exit_code
