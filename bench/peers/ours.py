"""replicad, as it is in this tree."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.peers.machine import revision
from bench.peers.peer import Command, Site
from bench.process import installed

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

_COMPILED = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": installed({})["PYTHONPYCACHEPREFIX"]}
"""As an installed package is started: with its bytecode compiled, whatever this environment says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicad:
    """With settings by their flags."""

    name: str = "replicad"
    flags: tuple[str, ...] = ()
    quiet_seconds: float = 2.5
    restores_instants: bool = True

    log_objects = re.compile(r"/log/[^/]+\.seg$")
    image_objects = re.compile(r"/(snapshots|chunks)/")

    def why_missing(self) -> str | None:
        """It is here."""
        return None

    def described(self) -> str:
        """Return the revision too: the version of an unreleased tool says little."""
        settings = " ".join(self.flags) or "defaults"
        return f"replicad {revision()}, {settings}, Python {sys.version.split()[0]}"

    def replicate(self, site: Site) -> Command:
        """Run as a sidecar."""
        return Command(
            argv=[*_program("run"), *_where(site), *self.flags, "--log-format", "json"], environment=_COMPILED
        )

    def restore(self, site: Site, output: Path, at: datetime | None = None) -> Command:
        """Restore over what is there, which may be reused."""
        when = [] if at is None else ["--at", at.isoformat(timespec="milliseconds")]
        flags = ["--json", "--force", "--output", str(output), *when]
        return Command(argv=[*_program("restore"), *_where(site), *flags], environment=_COMPILED)

    def boot(self, site: Site, application: str) -> Command:
        """Put it in front."""
        return Command(
            argv=[*_program("run"), *_where(site), *self.flags, "--", *shlex.split(application)], environment=_COMPILED
        )


def _program(command: str) -> list[str]:
    return [sys.executable, "-m", "replicad", command]


def _where(site: Site) -> list[str]:
    replica = f"s3://{site.bucket}/app?endpoint={site.endpoint}&region=us-east-1"
    return ["--database", str(site.database), "--replica", replica]
