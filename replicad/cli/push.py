"""`replicad push`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from replicad.cli.flags import command
from replicad.cli.timeout import DURATION
from replicad.config import Section
from replicad.errors import UsageError

if TYPE_CHECKING:
    from replicad.cli.invocation import Invocation


@command(
    settings=(
        Section.REPLICA,
        "integrity",
        "compression_level",
        "upload_concurrency",
        "handover_poll_interval",
        "handover_timeout",
        "fencing",
        Section.STORE,
        "log_level",
        "log_format",
    ),
    examples=(
        "replicad push backup.db --replica s3://bucket/app --database /data/app.db",
        "replicad push backup.db --dry-run --json",
        "replicad push --from-litestream s3://bucket/litestream/app.db --name app.db",
        "replicad push --from-litestream file:///mnt/litestream/app.db --dry-run",
    ),
    required=("replica",),
)
@click.argument("file", type=click.Path(), required=False)
@click.option(
    "--from-litestream",
    metavar="URL",
    help="Push the newest state of the Litestream replica (0.5 or 0.3) at this URL, in the manner of --replica and "
    "with the same credentials; needs replicad[litestream]. [default: FILE is pushed; example: --from-litestream "
    "s3://bucket/app.db]",
)
@click.option(
    "--timeout",
    type=DURATION,
    default="2m",
    help="How long an instance that owns the database, and lives, is waited for; then the push ends with status 11 "
    "and has stored nothing. [default: 2m; example: --timeout 10m]",
)
@click.option(
    "--dry-run", is_flag=True, help="Read and compress all of it, say what would be sent, send nothing. [default: off]"
)
def push(invocation: Invocation, *, file: str | None, from_litestream: str | None, **options: object) -> None:
    """Make a SQLite file, or a Litestream replica, the replica's newest state.

    The history stays: the state is one more transaction, behind all that was there, and any earlier one can be
    restored as before. A replica that does not exist is made. FILE is only read, in any journal mode, also while an
    application writes to it; what is pushed is one consistent state of it.

    An instance that owns the database is asked to hand over first, as for a deploy: its writers are kept out from
    then on, and it has to be restarted; the next `replicad run` begins with the pushed state. A push that fails
    leaves the newest state as it was, and can be repeated: chunks that are stored already are not sent again.
    """
    if (file is None) == (from_litestream is None):
        found = "neither" if file is None else "both"
        hint = "Give the path of the file, or --from-litestream with a URL."
        raise UsageError(where="FILE", expected="a file or --from-litestream", found=found, hint=hint)
    invocation.start_logging(answers_itself=True)
    # Imported here: `replicad push --help` needs neither store nor SQLite.
    from replicad.cli.pushing import PushOrder, carry_out  # noqa: PLC0415

    order = PushOrder(file=file, from_litestream=from_litestream, **options)  # type: ignore[arg-type]  # click's types
    answer, text = asyncio.run(carry_out(invocation, order))
    invocation.answer(answer, text)
