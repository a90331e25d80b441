from __future__ import annotations

import os
import signal
import subprocess

import pytest

from replicad.host.exitstatus import ExitStatus


@pytest.mark.parametrize(
    ("script", "status", "shell_code", "text"),
    [
        ("exit 0", ExitStatus(code=0), 0, "0"),
        ("exit 75", ExitStatus(code=75), 75, "75"),
        ("exit 255", ExitStatus(code=255), 255, "255"),
        ("kill -TERM $$", ExitStatus(signal=signal.SIGTERM), 143, "143 (SIGTERM)"),
        ("kill -KILL $$", ExitStatus(signal=signal.SIGKILL), 137, "137 (SIGKILL)"),
        ("ulimit -c 0; kill -QUIT $$", ExitStatus(signal=signal.SIGQUIT), 131, "131 (SIGQUIT)"),
        ("kill -40 $$", ExitStatus(signal=40), 168, "168 (signal 40)"),
    ],
)
def test_status_of_real_processes(script: str, status: ExitStatus, shell_code: int, text: str) -> None:
    """A code or a signal is told apart, and a shell's $? is what a shell says it is."""
    with subprocess.Popen(["sh", "-c", script]) as process:
        result = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert result is not None
        found = ExitStatus.from_wait(result)
    assert found == status
    assert found.shell_code == shell_code
    assert str(found) == text
    assert subprocess.run(["sh", "-c", f"sh -c '{script}'; exit $?"], check=False).returncode == shell_code
