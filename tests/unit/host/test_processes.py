from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from replicad.host.processes import list_processes, read_process
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[3]


def test_own_process() -> None:
    """A process is described by its pid, parent and group."""
    entry = read_process(os.getpid())
    assert entry is not None
    assert (entry.pid, entry.parent, entry.group) == (os.getpid(), os.getppid(), os.getpgrp())
    assert not entry.ended


def test_awkward_name(tmp_path: Path) -> None:
    """A program's name with spaces and parentheses in it does not shift the fields."""
    program = tmp_path / "a) Z 1 (b"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "60"], process_group=0) as process:
        entry = read_process(process.pid)
        listed = [entry.pid for entry in list_processes()]
        process.kill()
        assert entry is not None
        assert (entry.parent, entry.group) == (os.getpid(), process.pid)
        assert process.pid in listed
        # poll() and wait() would collect it
        wait_until(lambda: (found := read_process(process.pid)) is not None and found.ended)
    assert read_process(process.pid) is None


def test_foreign_proc() -> None:
    """Where /proc shows another pid namespace's processes, none are listed: their numbers mean others here.

    Seen to fail without the comparison of /proc/self: all processes of the outer namespace were listed.
    """
    script = "from replicad.host.processes import list_processes; import os; print(os.getpid(), len(list_processes()))"
    listed = []
    for option in ([], ["--mount-proc"]):
        command = ["unshare", "--pid", "--fork", "--kill-child", *option, sys.executable, "-c", script]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        if "unshare failed" in ran.stderr:
            pytest.skip(f"no pid namespace of our own here: {ran.stderr.strip()}")
        assert not ran.stderr
        listed.append(ran.stdout.split())
    assert listed == [["1", "0"], ["1", "1"]]
