"""This machine: room on the disk, a folder that can be written, change events, timeouts that fit the platform."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from typing import TYPE_CHECKING

from replicad.cli.checks.check import Check, fail, ok, warn
from replicad.cli.output import size
from replicad.config.units import format_duration
from replicad.errors import ReplicadError
from replicad.host.files import free_bytes
from replicad.host.watcher import Watcher
from replicad.observe.sockets import check_path

if TYPE_CHECKING:
    from pathlib import Path

    from replicad.config import DatabaseSettings, Settings

_EVENT_SECONDS = 1.0
_LEAST_FREE_BYTES = 64 << 20
_GRACE_SECONDS = 30.0  # Kubernetes' and Render's default


async def check_machine(settings: Settings, database: DatabaseSettings) -> list[Check]:
    """Return the checks of the machine. Creates and removes an empty file beside the database."""
    folder = database.path.parent
    checks = [await _folder(settings, folder)]
    if not any(check.advice for check in checks):
        checks.append(await asyncio.to_thread(_disk, settings, database.path))
    return [*checks, await asyncio.to_thread(_socket, settings), _grace(settings)]


async def _folder(settings: Settings, folder: Path) -> Check:
    """Create a file beside the database, and see whether the kernel tells of it."""
    name = "folder"
    resolved = await asyncio.to_thread(folder.resolve)
    if not await asyncio.to_thread(folder.is_dir):
        return fail(name, f"{folder} does not exist", "Create it, or mount the disk there.")
    probe = folder / f".replicad-doctor-{secrets.token_hex(8)}"
    changed = asyncio.Event()
    watcher = Watcher(asyncio.get_running_loop())
    try:
        watch = watcher.watch(resolved, (probe.name,), changed)
        armed = watch.arm()
        await asyncio.to_thread(probe.touch, exist_ok=False)
        if armed:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), _EVENT_SECONDS)
    except OSError as error:
        advice = "SQLite needs to create -wal and -shm there: give this user write permission."
        return fail(name, f"{folder} is not writable: {error.strerror}", advice)
    finally:
        await watcher.close()
        await asyncio.to_thread(probe.unlink, missing_ok=True)
    if changed.is_set():
        return ok(name, f"{folder} is writable and reports changes")
    interval = format_duration(settings.safety_poll_interval_seconds)
    advice = f"Commits are found by looking every {interval}: use a local disk, or lower safety_poll_interval."
    return warn(name, f"{folder} is writable, but reports no changes (a network file system, or a limit)", advice)


def _disk(settings: Settings, path: Path) -> Check:
    database_bytes = path.stat().st_size if path.exists() else 0
    free = free_bytes(path.parent)
    # A restore stands beside the old file until it is proven; the WAL is the queue while the store is away.
    wanted = database_bytes + settings.max_wal_bytes
    if free < _LEAST_FREE_BYTES:
        return fail("disk", f"{size(free)} free", "Make room: SQLite itself will soon be unable to write.")
    if free < wanted:
        advice = (
            "A restore beside the old file, or an outage of the store, may fill it: make room, or lower max_wal_bytes."
        )
        return warn("disk", f"{size(free)} free, less than the database and max_wal_bytes ({size(wanted)})", advice)
    return ok("disk", f"{size(free)} free")


def _socket(settings: Settings) -> Check:
    socket = settings.control_socket
    if socket is None:
        return ok("control socket", "none")
    try:
        check_path(socket)
    except ReplicadError as error:
        return fail("control socket", str(error), "Set control_socket.")
    if not os.access(socket.parent, os.W_OK | os.X_OK):
        return fail("control socket", f"{socket.parent} is not writable", "Set control_socket to a writable folder.")
    return ok("control socket", str(socket))


def _grace(settings: Settings) -> Check:
    seconds = settings.stop_timeout_seconds + settings.flush_timeout_seconds
    found = f"stop_timeout and flush_timeout are {format_duration(seconds)} together"
    if seconds <= _GRACE_SECONDS:
        return ok("stopping", f"{found}; Kubernetes and Render allow 30s, Cloud Run 10s, Fly 5s unless told otherwise")
    advice = "Raise the platform's grace period above that, or lower them: the final flush is cut off otherwise."
    return warn("stopping", found, advice)
