"""One copy from the command line: where from and to, carried out, and said about it."""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from replicad.cli.output import size
from replicad.cli.progress import progress_for
from replicad.cli.replica import open_objects
from replicad.config.databases import missing
from replicad.config.secret_file import read_secret
from replicad.errors import UsageError
from replicad.host.threads import Threads
from replicad.mirror.copying import CopyOptions, copy_replica
from replicad.mirror.side import Side
from replicad.observe import events
from replicad.observe.logging import get_logger
from replicad.store.database import stored_objects
from replicad.store.open import open_store
from replicad.store.url import parse_url, without_secrets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicad.cli.invocation import Invocation
    from replicad.config import DatabaseSettings, Settings
    from replicad.mirror.copying import Copied
    from replicad.store.options import StoreOptions
    from replicad.store.protocol import ObjectStore

_WHERE = "DESTINATION-URL"
_THREADS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The command's own arguments."""

    destination: str
    verify: bool
    dry_run: bool
    access_key_id_file: str | None
    secret_access_key_file: str | None


async def carry_out(invocation: Invocation, order: Order) -> tuple[Mapping[str, object], str, bool]:
    """Copy, or say what a copy would do; return the answer, its text, and whether all objects were sound.

    Raises:
        UsageError: the destination is none, or is the source.
        ReplicadError: as `copy_replica`.
    """
    settings = invocation.settings
    _check(settings, order)
    options = CopyOptions(concurrency=settings.upload_concurrency, verify=order.verify, dry_run=order.dry_run)
    answers, lines, is_sound = [], [], True
    threads = Threads("copy", _THREADS)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(threads.close)
        destination = await open_store(order.destination, _options(settings, order))
        stack.push_async_callback(destination.close)
        for database in settings.databases:
            progress = progress_for(sys.stderr, database.name, doing="copying", event=events.COPY_PROGRESSED)
            there = stored_objects(destination, database.name)
            async with open_objects(settings, database, concurrency=options.concurrency) as here:
                source, target = (Side.of(objects, settings.encryption_keys) for objects in (here, there))
                copied = await copy_replica(source, target, threads, options=options, progress=progress)
                answers.append(_as_json(database, here, there, copied))
            lines.append(_as_text(database, there, copied, dry_run=order.dry_run))
            is_sound = is_sound and not copied.damaged
            _log(database, copied, dry_run=order.dry_run)
    return {"dry_run": order.dry_run, "databases": answers}, "\n".join(lines), is_sound


def _check(settings: Settings, order: Order) -> None:
    location = parse_url(order.destination, where=_WHERE)
    if not settings.databases:
        raise missing("database")
    for database in settings.databases:
        if parse_url(database.replica) == location:
            found = without_secrets(order.destination)
            hint = "Give the bucket or folder that is to hold the copy."
            raise UsageError(where=_WHERE, expected="another place than the replica", found=found, hint=hint)
    if (order.access_key_id_file is None) != (order.secret_access_key_file is None):
        where = "--destination-access-key-id-file, --destination-secret-access-key-file"
        raise UsageError(where=where, expected="both or none", found="one of them", hint="A key has two parts.")


def _options(settings: Settings, order: Order) -> StoreOptions:
    options = settings.store_options(concurrency=settings.upload_concurrency)
    if order.access_key_id_file is not None and order.secret_access_key_file is not None:
        return replace(
            options,
            access_key_id=read_secret(order.access_key_id_file, "--destination-access-key-id-file").reveal(),
            secret_access_key=read_secret(
                order.secret_access_key_file, "--destination-secret-access-key-file"
            ).reveal(),
            session_token=None,
        )
    for mirror in settings.mirrors:
        if parse_url(mirror.url) == parse_url(order.destination):
            return mirror.store_options(options)
    return options


def _log(database: DatabaseSettings, copied: Copied, *, dry_run: bool) -> None:
    log = get_logger(database=database.name)
    for key in copied.damaged:
        log.error(events.OBJECT_DAMAGED, key=key)
    if not dry_run:
        log.info(events.COPIED, txid=copied.last_txid, objects=copied.sent, sent_bytes=copied.sent_bytes)


def _as_json(database: DatabaseSettings, here: ObjectStore, there: ObjectStore, copied: Copied) -> Mapping[str, object]:
    return {
        "name": database.name,
        "replica": here.url,
        "destination": there.url,
        "epoch": copied.epoch,
        "last_txid": copied.last_txid,
        "missing_objects": copied.missing,
        "missing_bytes": copied.missing_bytes,
        "present_objects": copied.present,
        "present_bytes": copied.present_bytes,
        "sent_objects": copied.sent,
        "sent_bytes": copied.sent_bytes,
        "verified_objects": copied.verified,
        "vanished_objects": copied.vanished,
        "foreign_keys": copied.foreign,
        "damaged": list(copied.damaged),
    }


def _as_text(database: DatabaseSettings, there: ObjectStore, copied: Copied, *, dry_run: bool) -> str:
    present = f"{copied.present} objects ({size(copied.present_bytes)}) are there already"
    if dry_run:
        lack = f"{copied.missing} objects ({size(copied.missing_bytes)})"
        return f"Would copy {lack} of {database.name} to {there.url}; {present}."
    sent = f"{copied.sent} objects ({size(copied.sent_bytes)})"
    lines = [f"Copied {sent} of {database.name} to {there.url}, up to TXID {copied.last_txid}; {present}."]
    if copied.verified:
        lines.append(f"Compared byte by byte: {copied.verified} objects.")
    lines += [f"Damaged: {key}" for key in copied.damaged]
    return "\n".join(lines)
