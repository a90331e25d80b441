"""`replicad restore`."""

from __future__ import annotations

import asyncio
import gc
import sys
from typing import TYPE_CHECKING

import click

from replicad.cli.flags import command
from replicad.config import Section
from replicad.errors import UsageError
from replicad.host.allocator import give_back_large_blocks

if TYPE_CHECKING:
    from replicad.cli.invocation import Invocation


@command(
    settings=(Section.REPLICA, Section.RESTORE, Section.STORE, "log_level", "log_format"),
    examples=(
        "replicad restore --replica s3://bucket/app --database /data/app.db",
        "replicad restore --at '15 minutes ago' --output /tmp/before.db",
        "replicad restore --txid 4711 --dry-run --json",
        "replicad restore --name app.db --output - | gzip > app.db.gz",
        "replicad restore --if-missing --if-replica-exists",
    ),
    required=("replica",),
)
@click.option(
    "--at",
    metavar="INSTANT",
    help="The newest transaction that was committed then or before: ISO 8601 (UTC without a zone) or relative. "
    "[default: the last state; example: --at 2026-01-31T12:00:00Z, --at '15 minutes ago']",
)
@click.option(
    "--txid",
    type=click.IntRange(min=1),
    metavar="NUMBER",
    help="Exactly this transaction; `replicad log` lists them. [default: the last; example: --txid 4711]",
)
@click.option(
    "--epoch",
    type=click.IntRange(1, 0xFFFF_FFFF),
    metavar="NUMBER",
    help="The line that ends in this epoch, with its orphaned tail. [default: the newest; example: --epoch 3]",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Where to put the database; - for standard output. [default: the database's path; example: -o /tmp/app.db]",
)
@click.option("--force", is_flag=True, help="Replace an existing file, once the new one is proven. [default: off]")
@click.option("--if-missing", is_flag=True, help="Do nothing, with status 0, when the file exists. [default: off]")
@click.option(
    "--if-replica-exists", is_flag=True, help="Do nothing, with status 0, when there is no backup. [default: off]"
)
@click.option("--dry-run", is_flag=True, help="Only show what would be done, and how much is fetched. [default: off]")
def restore(invocation: Invocation, *, at: str | None, txid: int | None, output: str | None, **options: object) -> None:
    """Bring a database back, to its last state or any earlier transaction.

    The file is put together beside its place, proven equal to the source by checksum, and only then renamed into
    it; what stood there is replaced only with --force, and the parts both have in common are not fetched. A stale
    -wal, -shm or -journal beside it is moved aside. Says exactly which instant it reached, and fails (14) rather
    than give an older one.
    """
    if at is not None and txid is not None:
        raise UsageError(where="--at", expected="either --at or --txid", found="both", hint="Leave one out.")
    if options["force"] and options["if_missing"]:
        hint = "--force replaces a file, --if-missing keeps it."
        raise UsageError(where="--force", expected="either --force or --if-missing", found="both", hint=hint)
    if output == "-" and sys.stdout.isatty():
        hint = "Redirect it: replicad restore -o - > app.db"
        raise UsageError(where="--output", expected="a file or a pipe behind -", found="a terminal", hint=hint)
    if output is None and not {"database", "databases"} & invocation.loaded.given.keys():
        hint = "Give --output when the database is known by its --name alone."
        raise UsageError(where="--output", expected="a path", found="nothing", hint=hint)
    invocation.start_logging(answers_itself=True)
    # Nearly all that is made while modules load stays: looking for garbage in it is a tenth of the start-up time.
    gc.disable()
    give_back_large_blocks()
    # Imported here: `replicad restore --help` needs neither store nor segments.
    from replicad.cli.restoring import Order, carry_out  # noqa: PLC0415

    order = Order(at=at, txid=txid, output=output, **options)  # type: ignore[arg-type]  # click has checked the flags
    answer, text = asyncio.run(carry_out(invocation, order))
    invocation.answer(answer, text, stream=sys.stderr if order.to_stdout else None)
