"""What many do by hand: `sqlite3 .backup` once a minute, and an upload."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.peers.peer import Command, Site
from tests.support.rclone_server import rclone_binary

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Cron:
    """Every minute, compressed or not."""

    name: str = "cron"
    compressed: bool = False
    quiet_seconds: float = 1.0
    restores_instants: bool = False

    log_objects = re.compile(r"/app\.db(\.gz)?$")
    image_objects = log_objects

    def why_missing(self) -> str | None:
        """It needs two programs."""
        missing = [] if shutil.which("sqlite3") else ["sqlite3"]
        missing += [] if rclone_binary() else ["rclone"]
        return f"cron is left out: there is no {' and no '.join(missing)}" if missing else None

    def described(self) -> str:
        """Return the script."""
        version = subprocess.run(["sqlite3", "--version"], capture_output=True, text=True, check=True).stdout.split()[0]
        pipe = " && gzip -1 copy" if self.compressed else ""
        return f"each minute `sqlite3 app.db '.backup copy'{pipe} && rclone copyto copy s3:…`, sqlite3 {version}"

    def replicate(self, site: Site) -> Command:
        """Loop."""
        copy = shlex.quote(str(site.folder / "copy"))
        backup = f"sqlite3 -cmd '.timeout 60000' {shlex.quote(str(site.database))} '.backup {copy}'"
        squeeze, end = (f" && gzip -1 -f {copy}", ".gz") if self.compressed else ("", "")
        script = f"while :; do {backup}{squeeze} && {_rclone()} {copy}{end} {self._remote(site)}; sleep 60; done"
        return Command(argv=["sh", "-c", script], environment=_settings(site))

    def restore(self, site: Site, output: Path, at: datetime | None = None) -> Command:
        """Fetch the one copy there is."""
        assert at is None  # noqa: S101 - see restores_instants
        return Command(argv=["sh", "-c", self._fetch(site, str(output))], environment=_settings(site))

    def boot(self, site: Site, application: str) -> Command:
        """Fetch, loop in the background, start."""
        loop = self.replicate(site).argv[2]
        script = f"{self._fetch(site, str(site.database))}; {{ {loop}; }} & exec {application}"
        return Command(argv=["sh", "-c", script], environment=_settings(site))

    def _fetch(self, site: Site, output: str) -> str:
        place = shlex.quote(output)
        plain = f"rm -f {place} {place}-wal {place}-shm; {_rclone()} {self._remote(site)} {place}"
        return f"{plain}.gz && gunzip -f {place}.gz" if self.compressed else plain

    def _remote(self, site: Site) -> str:
        return shlex.quote(f":s3:{site.bucket}/app.db{'.gz' if self.compressed else ''}")


def _rclone() -> str:
    return f"{shlex.quote(str(rclone_binary()))} copyto --s3-no-check-bucket --config /dev/null"


def _settings(site: Site) -> dict[str, str]:
    return {
        "RCLONE_S3_PROVIDER": "Other",
        "RCLONE_S3_ENDPOINT": site.endpoint,
        "RCLONE_S3_REGION": "us-east-1",
        "RCLONE_S3_ACCESS_KEY_ID": site.access_key_id,
        "RCLONE_S3_SECRET_ACCESS_KEY": site.secret_access_key,
    }
