"""What all followers of a process share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicad.host.clock import Clock
    from replicad.host.threads import Threads
    from replicad.host.watcher import Watcher


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """Clock, threads for blocking work, and change events."""

    clock: Clock
    threads: Threads  # for what capture and ship wait for
    background: Threads  # for snapshots: steps back behind the application
    watcher: Watcher
    heavy: asyncio.Semaphore = field(default_factory=partial(asyncio.Semaphore, 1))  # for what holds many MiB at once
    environment: Mapping[str, str] | None = None  # under which another replicad reads the same settings; None: none may
