"""The two lines of docs/operations.md that wait for durability over the control socket do what they say."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.mentions import ROOT, fenced
from tests.unit.cli.conftest import Running, running

if TYPE_CHECKING:
    from collections.abc import Iterator

SOCKET = "/data/app.db-replicad.sock"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A running replicad that would send nothing for half a minute by itself."""
    with running(tmp_path_factory.mktemp("d"), "--sync-interval", "30s") as found:
        yield found


def _line(language: str, daemon: Running) -> str:
    """Return the document's only line in a language that names the socket, with this daemon's socket in it."""
    body = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    (line,) = [block for block in fenced(body, language) if SOCKET in block]
    return line.replace(SOCKET, f"{daemon.path}-replicad.sock")


def _durable(daemon: Running) -> bool:
    (found,) = daemon.answer("status")["databases"]
    return bool(found["durable_txid"] == found["captured_txid"] and not found["pending_transactions"])


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")
def test_the_line_for_a_shell(daemon: Running) -> None:
    """The status of curl is 0 when all that was committed is durable."""
    daemon.write("INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)")
    ended = subprocess.run(["sh", "-c", _line("sh", daemon)], check=False, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 0, ended.stderr
    assert '"durable_txid"' in ended.stdout
    assert _durable(daemon)


def test_the_line_of_python(daemon: Running) -> None:
    """It is one line, and `durable` is true when all that was committed is durable."""
    line = _line("python", daemon).strip()
    assert len(line.splitlines()) == 1
    daemon.write("INSERT INTO t VALUES (3)", "INSERT INTO t VALUES (4)")
    command = [sys.executable, "-W", "ignore", "-c", f"{line}\nprint(durable)"]
    ended = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
    assert ended.stdout.strip() == "True"
    assert _durable(daemon)
    refused = command[-1].replace("timeout_seconds=5", "timeout_seconds=-1")
    again = subprocess.run([*command[:-1], refused], check=True, capture_output=True, text=True, timeout=30)
    assert again.stdout.strip() == "False"
