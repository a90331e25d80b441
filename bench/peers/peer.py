"""What a tool that keeps a copy of a database is, to this benchmark: a few commands and a name for its objects."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import re
    from collections.abc import Mapping, Sequence
    from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One database, the bucket it is copied to, and a folder for what the tool needs besides."""

    folder: Path
    database: Path
    bucket: str
    endpoint: str
    access_key_id: str
    secret_access_key: str

    def environment(self) -> dict[str, str]:
        """Return the environment of the tool's processes; keys go by the names that all of them read."""
        keys = {"AWS_ACCESS_KEY_ID": self.access_key_id, "AWS_SECRET_ACCESS_KEY": self.secret_access_key}
        foreign = ("AWS_", "REPLICAD_", "LITESTREAM_", "RCLONE_")
        clean = {name: text for name, text in os.environ.items() if not name.startswith(foreign)}
        return {**clean, **keys, "AWS_REGION": "us-east-1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command line, and what it takes besides the site's environment."""

    argv: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


class Peer(Protocol):
    """A tool with its settings."""

    @property
    def name(self) -> str:
        """As it stands in tables."""
        ...

    @property
    def log_objects(self) -> re.Pattern[str]:
        """The keys of the objects that hold commits."""
        ...

    @property
    def image_objects(self) -> re.Pattern[str]:
        """The keys of the objects that hold whole databases; the first one stored says that the tool has begun."""
        ...

    @property
    def quiet_seconds(self) -> float:
        """How long nothing is sent although there is something to send."""
        ...

    @property
    def restores_instants(self) -> bool:
        """Whether it can go back to an instant."""
        ...

    def why_missing(self) -> str | None:
        """Return why it cannot be measured here, or None."""
        ...

    def described(self) -> str:
        """Return its version and its settings, for the report."""
        ...

    def replicate(self, site: Site) -> Command:
        """Return what keeps the copy up to date until it gets SIGTERM."""
        ...

    def restore(self, site: Site, output: Path, at: datetime | None = None) -> Command:
        """Return what puts the database at `output`, replacing what stands there."""
        ...

    def boot(self, site: Site, application: str) -> Command:
        """Return what a container does at its start: bring the database back, start the application, replicate."""
        ...


def cache() -> Path:
    """Return the folder that the peers' binaries are kept in."""
    base = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(base) / "replicad-bench"
