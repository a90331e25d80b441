"""`replicad prune`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click

from replicad.cli.control import demand
from replicad.cli.flags import command
from replicad.cli.output import columns, size
from replicad.cli.timeout import DURATION
from replicad.config import Section
from replicad.errors import DaemonAbsent, OwnedByAnother

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicad.cli.invocation import Invocation
    from replicad.position import Epoch
    from replicad.store.protocol import ObjectStore

_CONCURRENCY = 8
_THREADS = 2


@command(
    settings=(Section.REPLICA, Section.KEEPING, "control_socket", Section.STORE, "log_level", "log_format"),
    examples=("replicad prune", "replicad prune --pitr-window 30d --keep-monthly 12", "replicad prune --confirm"),
    required=("replica",),
)
@click.option("--confirm", is_flag=True, help="Delete. [default: only show what would be; example: --confirm]")
@click.option(
    "--force",
    is_flag=True,
    help="With --confirm and no replicad running here: delete although the last owner did not end its epoch. Only when "
    "it is gone for good. [default: exit code 11; example: --confirm --force]",
)
@click.option(
    "--limit",
    type=click.IntRange(0, 10_000_000),
    default=20,
    metavar="COUNT",
    help="Most single objects to list, of those that go and of those that stay; 0 for all. [default: 20; example: "
    "--limit 0]",
)
@click.option(
    "--timeout",
    "timeout_seconds",
    type=DURATION,
    default="10m",
    help="How long to wait for a running replicad. [default: 10m; 0s to 1h; example: --timeout 1h]",
)
def prune(invocation: Invocation, *, confirm: bool, force: bool, limit: int, timeout_seconds: float) -> None:
    """Show what retention deletes and keeps, and why; delete with --confirm.

    The running replicad does this by itself, at most every `retention_interval`. Only a database's owner deletes: with
    --confirm it is asked over its control socket, and goes by its own settings. Without one the store is gone through
    from here, provided that the last owner ended in order.
    """
    invocation.start_logging(answers_itself=True)
    if not confirm:
        answer = asyncio.run(_look(invocation, limit=limit))
    else:
        answer = asyncio.run(_delete(invocation, force=force, limit=limit, timeout_seconds=timeout_seconds))
    invocation.answer(answer, _text(answer))


async def _look(invocation: Invocation, *, limit: int) -> Mapping[str, object]:
    # Imported here: `replicad prune --help` needs neither store nor history.
    from replicad.cli.replica import open_replica  # noqa: PLC0415
    from replicad.host.clock import SystemClock  # noqa: PLC0415
    from replicad.host.threads import Threads  # noqa: PLC0415
    from replicad.replicate.pruning import NoSnapshots, Pruning  # noqa: PLC0415
    from replicad.replicate.verdicts import as_json  # noqa: PLC0415

    database, settings = invocation.only_database(), invocation.settings
    threads = Threads("prune", _THREADS)
    try:
        async with open_replica(settings, database, concurrency=_CONCURRENCY) as store:
            pruning = Pruning(store, SystemClock(), threads, settings.retention_policy, NoSnapshots())
            found = as_json(await pruning.examine(probe=False), limit=limit)
            return {"deleted": False, "databases": [{"name": database.name, "replica": store.url, **found}]}
    finally:
        await threads.close()


async def _delete(invocation: Invocation, *, force: bool, limit: int, timeout_seconds: float) -> Mapping[str, object]:
    socket = invocation.settings.control_socket
    if socket is not None:
        try:
            answer = await demand(socket, f"/prune?limit={limit}", method="POST", timeout_seconds=timeout_seconds)
        except DaemonAbsent:  # one that does not answer may be about to write
            pass
        else:
            return {"deleted": True, "source": "running replicad", "databases": answer["databases"]}
    return await _delete_from_here(invocation, force=force, limit=limit)


async def _delete_from_here(invocation: Invocation, *, force: bool, limit: int) -> Mapping[str, object]:
    import structlog  # noqa: PLC0415

    from replicad.cli.replica import open_replica  # noqa: PLC0415
    from replicad.host.clock import SystemClock  # noqa: PLC0415
    from replicad.host.threads import Threads  # noqa: PLC0415
    from replicad.observe.metrics import DatabaseMetrics  # noqa: PLC0415
    from replicad.replicate.pruning import NoSnapshots, Pruning  # noqa: PLC0415
    from replicad.replicate.removal import Removal  # noqa: PLC0415
    from replicad.replicate.verdicts import as_json  # noqa: PLC0415

    database, settings = invocation.only_database(), invocation.settings
    threads = Threads("prune", _THREADS)
    try:
        async with open_replica(settings, database, concurrency=_CONCURRENCY, only_to_read=False) as store:
            epoch = await _ownerless_epoch(store, database.name, force=force)
            removal = Removal(store, _Unclaimed(store, epoch), DatabaseMetrics(), structlog.get_logger())
            pruning = Pruning(store, SystemClock(), threads, settings.retention_policy, NoSnapshots())
            while True:
                examined = await pruning.examine(probe=True)
                if await pruning.carry_out(examined, removal):
                    break
            return {
                "deleted": True,
                "databases": [{"name": database.name, "replica": store.url, **as_json(examined, limit=limit)}],
            }
    finally:
        await threads.close()


async def _ownerless_epoch(store: ObjectStore, name: str, *, force: bool) -> Epoch:
    """Return the newest epoch that was claimed, which has to be ended.

    Raises:
        OwnedByAnother: it is not, and nobody insists.
    """
    from replicad.layout import end_key  # noqa: PLC0415
    from replicad.replicate.own import highest_claim  # noqa: PLC0415

    epoch = await highest_claim(store)
    key = end_key(epoch)
    ended = [found.key async for found in store.list(key)]
    if epoch and key not in ended and not force:
        raise OwnedByAnother(
            database=name,
            found=f"epoch {epoch} has not ended, and no replicad answers here",
            hint="Run this where its owner runs, or stop that one in order; give --force if it is gone for good.",
        )
    return epoch


class _Unclaimed:
    """Nobody has claimed a later epoch; implements removal.Ownership."""

    retiring = False

    def __init__(self, store: ObjectStore, epoch: Epoch) -> None:
        self._store = store
        self._epoch = epoch

    async def may_delete(self) -> bool:
        """Look."""
        from replicad.replicate.own import highest_claim  # noqa: PLC0415

        return await highest_claim(self._store) == self._epoch


def _text(answer: Mapping[str, Any]) -> str:
    lines = []
    for found in answer["databases"]:
        lines += [f"{found['name']}: any moment since {found['window_begin'] or '-'} can be restored"]
        for fate, single, what in (
            ("delete", "deleted_objects", "Deleted" if answer["deleted"] else "To be deleted"),
            ("keep", "kept_objects", "Kept"),
        ):
            lines += ["", f"{what}:", _table(found[fate])] if found[fate] else ["", f"{what}: nothing"]
            lines += [f"  {one['key']}  {one['reason']}" for one in found[single]]
            left = sum(row["objects"] for row in found[fate]) - len(found[single])
            lines += [f"  and {left} more; see --limit"] if left else []
    if not answer["deleted"] and any(found["delete"] for found in answer["databases"]):
        lines += ["", "Nothing was deleted: give --confirm."]
    return "\n".join(lines)


def _table(sums: list[Mapping[str, Any]]) -> str:
    rows = [(row["kind"], row["reason"], str(row["objects"]), size(row["size_bytes"])) for row in sums]
    return columns(("KIND", "REASON", "OBJECTS", "SIZE"), rows, right=(2, 3))
