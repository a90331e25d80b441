"""`replicad preserve`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from replicad.cli.flags import command
from replicad.cli.output import columns
from replicad.config import Section
from replicad.config.units import parse_duration
from replicad.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicad.cli.invocation import Invocation
    from replicad.layout import MarkKey
    from replicad.plan.mark import Mark
    from replicad.plan.target import Target
    from replicad.restore.fetch import Fetch
    from replicad.store.protocol import ObjectStore

_CONCURRENCY = 8
_THREADS = 2


@command(
    settings=(Section.REPLICA, Section.STORE, "log_level", "log_format"),
    examples=(
        "replicad preserve --for 90d",
        "replicad preserve --at '2025-11-21 02:00' --until 2026-03-01 --reason 'before the migration'",
        "replicad preserve --list",
        "replicad preserve --txid 4711 --remove",
    ),
    required=("replica",),
)
@click.option(
    "--at",
    metavar="INSTANT",
    help="The state at a time: ISO 8601 (UTC without a zone) or relative. [default: the last state; example: --at "
    "'15 minutes ago']",
)
@click.option(
    "--txid",
    type=click.IntRange(0, (1 << 63) - 1),
    metavar="NUMBER",
    help="The state after a transaction. [default: the last state; example: --txid 4711]",
)
@click.option(
    "--until",
    metavar="INSTANT",
    help="Until when it is preserved: ISO 8601 (UTC without a zone) or relative. [default: none; example: --until "
    "2026-03-01]",
)
@click.option("--for", "for_", metavar="DURATION", help="For how long. [default: none; example: --for 90d]")
@click.option("--reason", default="command", help="Why, for people. [default: command; example: --reason migration]")
@click.option("--remove", is_flag=True, help="Take the state's marks away. [default: make one; example: --remove]")
@click.option("--list", "show", is_flag=True, help="List the marks there are. [default: make one; example: --list]")
def preserve(
    invocation: Invocation,
    *,
    at: str | None,
    txid: int | None,
    until: str | None,
    for_: str | None,
    reason: str,
    remove: bool,
    show: bool,
) -> None:
    """Keep a state from retention until a date.

    A preserved state stays restorable however old it becomes: retention leaves the snapshot and the segments that lead
    to it. replicad makes such a mark by itself when a much smaller database comes in place of a good one.
    """
    invocation.start_logging(answers_itself=True)
    _check(at=at, txid=txid, until=until, for_=for_, remove=remove, show=show)
    answer, text = asyncio.run(
        _preserve(invocation, at=at, txid=txid, until=until, for_=for_, reason=reason, remove=remove, show=show)
    )
    invocation.answer(answer, text)


def _check(*, at: str | None, txid: int | None, until: str | None, for_: str | None, remove: bool, show: bool) -> None:
    def refuse(expected: str, found: str) -> UsageError:
        return UsageError(where="preserve", expected=expected, found=found, hint="See `replicad preserve --help`.")

    if at is not None and txid is not None:
        raise refuse("either --at or --txid", "both")
    if show and (remove or any(one is not None for one in (at, txid, until, for_))):
        raise refuse("nothing beside --list", "another flag")
    if remove and (until is not None or for_ is not None):
        raise refuse("no end with --remove", "--until or --for")
    if not show and not remove and (until is None) == (for_ is None):
        raise refuse("either --until or --for", "both" if until is not None else "neither")


async def _preserve(
    invocation: Invocation,
    *,
    at: str | None,
    txid: int | None,
    until: str | None,
    for_: str | None,
    reason: str,
    remove: bool,
    show: bool,
) -> tuple[Mapping[str, object], str]:
    # Imported here: `replicad preserve --help` needs neither store nor history.
    from replicad.cli.replica import open_replica  # noqa: PLC0415
    from replicad.host.clock import SystemClock  # noqa: PLC0415
    from replicad.host.threads import Threads  # noqa: PLC0415
    from replicad.restore.fetch import Fetch  # noqa: PLC0415
    from replicad.restore.preserve import Wish, read_marks  # noqa: PLC0415
    from replicad.restore.preserve import preserve as make  # noqa: PLC0415

    database, target, now_ms = invocation.only_database(), _target(at, txid), SystemClock().now_ms()
    until_ms = None if show or remove else _until_ms(until, for_, now_ms)
    threads = Threads("preserve", _THREADS)
    try:
        async with open_replica(invocation.settings, database, concurrency=_CONCURRENCY, only_to_read=show) as store:
            fetch = Fetch(store, threads, concurrency=_CONCURRENCY)
            if show:
                marks = [_as_json(key, mark) for key, mark in await read_marks(store, fetch)]
                return {"marks": marks}, _table(marks)
            if remove:
                gone = [_as_json(key, None) for key in await _remove(store, fetch, target)]
                return {"removed": gone}, _table(gone) if gone else "There was no mark of that state."
            if until_ms is None:
                raise AssertionError
            mark = await make(store, fetch, target, Wish(until_ms=until_ms, now_ms=now_ms, reason=reason))
            made = _as_json(mark.key, mark)
            return {"preserved": made}, _table([made])
    finally:
        await threads.close()


async def _remove(store: ObjectStore, fetch: Fetch, target: Target) -> list[MarkKey]:
    from replicad.plan.target import AtTXID  # noqa: PLC0415
    from replicad.restore.preserve import remove_marks, resolve_state  # noqa: PLC0415

    txid = target.txid if isinstance(target, AtTXID) else (await resolve_state(store, fetch, target)).txid
    return await remove_marks(store, txid)


def _target(at: str | None, txid: int | None) -> Target:
    from replicad.cli.instant import instant_ms  # noqa: PLC0415
    from replicad.plan.target import AtTime, AtTXID, Latest  # noqa: PLC0415
    from replicad.position import TXID  # noqa: PLC0415

    if txid is not None:
        return AtTXID(TXID(txid))
    return Latest() if at is None else AtTime(instant_ms(at, where="--at"))


def _until_ms(until: str | None, for_: str | None, now_ms: int) -> int:
    from replicad.cli.instant import instant_ms  # noqa: PLC0415
    from replicad.plan.target import format_ms  # noqa: PLC0415

    if until is not None:
        until_ms = instant_ms(until, where="--until")
    else:
        try:
            until_ms = now_ms + round(parse_duration(for_ or "") * 1000)
        except ValueError:
            raise UsageError(
                where="--for", expected="a duration such as 90d", found=repr(for_), hint="Its unit belongs to it."
            ) from None
    if until_ms <= now_ms:
        hint = "A mark that has expired keeps nothing."
        raise UsageError(where="--until", expected="a time to come", found=format_ms(until_ms), hint=hint)
    return until_ms


def _as_json(key: MarkKey, mark: Mark | None) -> Mapping[str, object]:
    from replicad.plan.target import format_ms  # noqa: PLC0415

    return {
        "key": str(key),
        "txid": key.txid,
        "epoch": key.epoch,
        "until": format_ms(key.until_ms),
        "made_at": format_ms(mark.made_ms) if mark else None,
        "reason": mark.reason if mark else None,
    }


def _table(marks: list[Mapping[str, object]]) -> str:
    if not marks:
        return "No state is preserved."
    rows = [tuple(str(mark[name] or "-") for name in ("txid", "epoch", "until", "reason")) for mark in marks]
    return columns(("TXID", "EPOCH", "UNTIL (UTC)", "REASON"), rows, right=(0, 1))
