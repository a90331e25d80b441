"""The commands and configuration files of a tool as the report shows them."""

from __future__ import annotations

import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bench.peers.peer import Site

if TYPE_CHECKING:
    from bench.peers.peer import Peer


def shown(peer: Peer) -> str:
    """Return its version and settings in the first line, then what was run, with names in place of paths."""
    with tempfile.TemporaryDirectory() as folder:
        site = Site(
            folder=Path(folder),
            database=Path("/data/app.db"),
            bucket="BUCKET",
            endpoint="http://127.0.0.1:PORT",
            access_key_id="KEY",
            secret_access_key="SECRET",  # noqa: S106 - shown, not used
        )
        lines = [shlex.join(peer.replicate(site).argv), shlex.join(peer.restore(site, Path("/data/restored.db")).argv)]
        lines += [f"# {file.name}\n{file.read_text().rstrip()}" for file in sorted(Path(folder).glob("*.yml"))]
        text = "\n".join([peer.described(), *lines]).replace(folder, "DIR")
    for whole in (sys.executable, str(Path(sys.executable).parent), str(Path("~/.cache").expanduser())):
        text = text.replace(whole, "python" if whole == sys.executable else "BIN")
    return text
