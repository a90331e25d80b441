"""What all followers of a process share."""

from __future__ import annotations

from dataclasses import dataclass
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
    environment: Mapping[str, str] | None = None  # under which another replicad reads the same settings; None: none may
