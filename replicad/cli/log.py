"""`replicad log`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from replicad.cli.flags import command
from replicad.cli.output import columns, size
from replicad.config import Section

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicad.cli.invocation import Invocation
    from replicad.cli.transactions import Entry

_CONCURRENCY = 8


@command(
    settings=(Section.REPLICA, Section.STORE, "log_level", "log_format"),
    examples=("replicad log", "replicad log --since '2 hours ago' --limit 0", "replicad log --json --limit 5"),
    required=("replica",),
)
@click.option(
    "--limit",
    type=click.IntRange(0, 1_000_000),
    default=20,
    metavar="COUNT",
    help="Most transactions to list, newest first; 0 for all. [default: 20; example: --limit 100]",
)
@click.option(
    "--since",
    metavar="INSTANT",
    help="List only what was committed then or later: ISO 8601 (UTC without a zone) or relative. [default: no limit; "
    "example: --since '2 hours ago']",
)
@click.option(
    "--epoch",
    type=click.IntRange(1, 0xFFFF_FFFF),
    metavar="NUMBER",
    help="List the line that ends in this epoch, to see an orphaned tail. [default: the newest; example: --epoch 3]",
)
def log(invocation: Invocation, *, limit: int, since: str | None, epoch: int | None) -> None:
    """List transactions and restore points.

    The newest stands first. Any transaction can be restored with `--txid`, any instant between the first and the
    last with `--at`. PAGES are those a transaction wrote, DATABASE is its size afterwards. Single transactions are
    read from the segments' indexes; the rest is known from the listing alone.
    """
    invocation.start_logging(answers_itself=True)
    answer, entries = asyncio.run(_log(invocation, limit=limit, since=since, epoch=epoch))
    invocation.answer(answer, _text(answer, entries))


async def _log(
    invocation: Invocation, *, limit: int, since: str | None, epoch: int | None
) -> tuple[Mapping[str, object], list[Entry]]:
    # Imported here: `replicad log --help` needs neither store nor history.
    from replicad.cli.instant import instant_ms  # noqa: PLC0415
    from replicad.cli.replica import open_replica, summary  # noqa: PLC0415
    from replicad.cli.transactions import read_entries  # noqa: PLC0415
    from replicad.plan.line import line_of_history  # noqa: PLC0415
    from replicad.plan.target import format_ms  # noqa: PLC0415
    from replicad.position import Epoch  # noqa: PLC0415
    from replicad.restore.history import read_history  # noqa: PLC0415
    from replicad.restore.preserve import list_marks  # noqa: PLC0415

    since_ms = instant_ms(since, where="--since") if since is not None else None
    database = invocation.only_database()
    wanted = Epoch(epoch) if epoch is not None else None
    async with open_replica(invocation.settings, database, concurrency=_CONCURRENCY) as store:
        line = line_of_history(await read_history(store, epoch=wanted), epoch=wanted)
        entries = await read_entries(store, line, limit=limit, since_ms=since_ms)
        marks = await list_marks(store)
        return {
            "database": database.name,
            "replica": store.url,
            **summary(line),
            "preserved": [{"txid": mark.txid, "until": format_ms(mark.until_ms)} for mark in marks],
            "entries": [entry.as_json() for entry in entries],
        }, entries


def _text(answer: Mapping[str, object], entries: list[Entry]) -> str:
    rows = [
        (
            entry.at or "-",
            str(entry.txid),
            str(entry.epoch),
            entry.kind,
            "-" if entry.pages is None else str(entry.pages),
            "-" if entry.database_bytes is None else size(entry.database_bytes),
            size(entry.size_bytes),
        )
        for entry in entries
    ]
    first, last = (
        f"{answer[f'{end}_restorable_at']} (TXID {answer[f'{end}_restorable_txid']})" for end in ("first", "last")
    )
    gaps = f", with {answer['gaps']} gaps" if answer["gaps"] else ""
    lines = [
        columns(("TIME (UTC)", "TXID", "EPOCH", "KIND", "PAGES", "DATABASE", "SIZE"), rows, right=(1, 2, 4, 5, 6)),
        "",
        f"Restorable: {first} to {last}{gaps}",
    ]
    preserved = answer["preserved"]
    if isinstance(preserved, list):
        lines += [f"Preserved: TXID {mark['txid']} until {mark['until']}" for mark in preserved]
    tails = answer["orphaned_tails"]
    if isinstance(tails, list):
        lines += [_tail(tail) for tail in tails]
    return "\n".join(lines)


def _tail(tail: Mapping[str, object]) -> str:
    epoch = tail["epoch"]
    return (
        f"Orphaned tail: {tail['transactions']} transactions of epoch {epoch}, TXID {tail['first_txid']} to "
        f"{tail['last_txid']}; see `replicad log --epoch {epoch}`, get them with `replicad restore --epoch {epoch}`"
    )
