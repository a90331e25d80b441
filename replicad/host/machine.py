"""What this process runs on: the instance's name for people, and the memory it takes."""

from __future__ import annotations

import os
import resource
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

INSTANCE_VARIABLES: Final = (
    "RENDER_INSTANCE_ID",
    "FLY_MACHINE_ID",
    "RAILWAY_REPLICA_ID",
    "KOYEB_INSTANCE_ID",
    "DYNO",
    "POD_NAME",
    "K_REVISION",
)
"""Variables by which platforms name an instance, the most particular first; K_REVISION only names a release."""


def instance_name(environment: Mapping[str, str]) -> str:
    """Return what claims, logs and status call this instance: the platform's name for it, and the host's.

    For people to read. It is not unique (all instances of a Cloud Run revision share one, a restarted
    container keeps its own), so nothing may be decided by it.
    """
    host = socket.gethostname()
    named = next((environment[name] for name in INSTANCE_VARIABLES if environment.get(name)), "")
    return host if named in {"", host} else f"{named}@{host}"


def resident_bytes() -> int:
    """Return the memory this process takes now; where /proc is missing, the most it ever took."""
    try:
        resident_pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return resident_pages * os.sysconf("SC_PAGE_SIZE")
