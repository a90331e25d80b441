from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from replicad.errors import AlreadyRunning, FileUnusable
from replicad.host.lockfile import LockFile

if TYPE_CHECKING:
    from pathlib import Path

HOLDER = """
import subprocess, sys
from pathlib import Path
from replicad.host.lockfile import LockFile
lock = LockFile(Path(sys.argv[1]))
lock.acquire()
child = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
sys.stdin.read()
"""


def test_lock_is_exclusive_and_names_its_holder(tmp_path: Path) -> None:
    """While one process holds the lock another gets an error with the holder's pid, and does not wait."""
    path = tmp_path / "app.db-replicad.lock"
    lock = LockFile(path)
    held = [lock.held]
    with lock:
        held.append(lock.held)
        lock.acquire()  # no effect on one that is held
        with pytest.raises(AlreadyRunning, match=f"is locked by process {os.getpid()}:") as refused:
            LockFile(path).acquire()
        assert refused.value.exit_code == 11
    held.append(lock.held)
    assert held == [False, True, False]
    lock.release()
    with LockFile(path):
        pass
    assert path.exists()


def test_lock_ends_with_its_process(tmp_path: Path) -> None:
    """A killed holder lets go of the lock, also while a child that it started lives on.

    Seen to fail with the descriptor made inheritable and close_fds off: the child kept the lock.
    """
    path = tmp_path / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    grandchild = int(holder.stdout.readline())
    try:
        with pytest.raises(AlreadyRunning, match=f"process {holder.pid}:"):
            LockFile(path).acquire()
        holder.kill()
        holder.communicate()
        os.kill(grandchild, 0)
        with LockFile(path) as lock:
            assert path.read_text() == f"{os.getpid()}\n"
            assert lock.held
    finally:
        os.kill(grandchild, 9)


def test_holder_unknown(tmp_path: Path) -> None:
    """A lock held by something that wrote no pid is still refused."""
    path = tmp_path / "lock"
    with LockFile(path):
        path.write_text("not a number")
        with pytest.raises(AlreadyRunning, match="locked by an unknown process"):
            LockFile(path).acquire()


def test_unusable_lock_file(tmp_path: Path) -> None:
    """A lock file that cannot be opened is an error of its own, not a lock."""
    with pytest.raises(FileUnusable, match="could not be opened: No such file"):
        LockFile(tmp_path / "missing" / "lock").acquire()
    with pytest.raises(FileUnusable, match="could not be opened: Is a directory"):
        LockFile(tmp_path).acquire()
