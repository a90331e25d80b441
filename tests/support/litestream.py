"""The real Litestream, as a source to move from.

    if (missing := why_no_litestream("0.5")) is not None:
        pytest.skip(missing)
    with Litestream("0.5", database, folder, replica) as litestream:
        litestream.start(); …; litestream.stop()
        litestream.restore(output)

Its binaries are those that the benchmark measures against (bench/peers); they are not fetched here.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.support.moto_server import CREDENTIALS

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAMES = {"0.5": "litestream", "0.3": "litestream-0.3.13"}
_PATIENCE_SECONDS = 60.0


def litestream_binary(line: str) -> Path:
    """Return where the binary of a line ("0.5", "0.3") is, or would be."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(cache) / "replicad-bench" / "bin" / _NAMES[line]


def why_no_litestream(line: str) -> str | None:
    """Return the reason to give when a test that needs it is skipped, or None."""
    if litestream_binary(line).is_file():
        return None
    return f"no Litestream {line} binary in the cache: `python -m bench.peers` fetches it"


class Litestream:
    """Litestream for one database; `replica` are the settings of where to and how."""

    def __init__(
        self,
        line: str,
        database: Path,
        folder: Path,
        replica: Mapping[str, object],
        settings: Mapping[str, object] | None = None,
    ) -> None:
        """`folder` is for its configuration and log, `settings` are those above the database."""
        self._program = str(litestream_binary(line))
        self._database = database
        self._config = folder / "litestream.yml"
        self._log = folder / "litestream.log"
        one = {"replica": dict(replica), "monitor-interval": "50ms"} if line == "0.5" else {"replicas": [dict(replica)]}
        everything = {**(settings or {}), "dbs": [{"path": str(database), **one}]}
        self._config.write_text(json.dumps(everything))  # JSON is YAML
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(_PATIENCE_SECONDS)
        if self._log.exists():
            print(self._log.read_text()[-5_000:])  # noqa: T201 - pytest shows it when the test fails

    def start(self) -> None:
        """Start it, and wait for nothing."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "replicate", "-config", str(self._config)],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def stop(self) -> None:
        """Have it send the rest, and end."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(_PATIENCE_SECONDS)
        self._process = None

    def said(self, text: str) -> bool:
        """Return whether its log has this text."""
        return self._log.exists() and text in self._log.read_text()

    def restore(self, output: Path) -> None:
        """Have it restore the newest state."""
        subprocess.run(
            [self._program, "restore", "-config", str(self._config), "-o", str(output), str(self._database)],
            env=_environment(),
            capture_output=True,
            check=True,
            timeout=_PATIENCE_SECONDS,
        )


def _environment() -> dict[str, str]:
    """Return the variables of this process, but for the machine's own way to AWS: 0.5 does not start with a CA file."""
    return {name: text for name, text in os.environ.items() if not name.startswith("AWS_")} | CREDENTIALS
