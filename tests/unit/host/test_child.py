from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from replicad.errors import CommandNotExecutable, CommandNotFound
from replicad.host.child import Child
from replicad.host.exitstatus import ExitStatus
from replicad.host.processes import list_processes, read_process
from replicad.host.reaper import STATUS_LOST, Reaper
from tests.support.waiting import wait_until_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def reaper() -> AsyncIterator[Reaper]:
    """Return a reaper that adopts nobody."""
    with Reaper(asyncio.get_running_loop(), adopt=False) as found:
        yield found


def shell(reaper: Reaper, script: str, **variables: str) -> Child:
    """Start a shell script."""
    return Child.start(["sh", "-c", script], reaper=reaper, env=dict(os.environ) | variables)


def in_use() -> tuple[int, int, int]:
    """Return how many descriptors, threads and children, zombies too, this process has."""
    children = [entry for entry in list_processes() if entry.parent == os.getpid()]
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count(), len(children)


async def test_status(reaper: Reaper) -> None:
    """A child's status is its own, whichever of many ends first."""
    scripts = ["exit 0", "exit 3", "kill -9 $$", "exit 127"]
    children = [shell(reaper, script) for script in scripts]
    statuses = [await child.wait() for child in reversed(children)]
    assert statuses[::-1] == [
        ExitStatus(code=0),
        ExitStatus(code=3),
        ExitStatus(signal=signal.SIGKILL),
        ExitStatus(code=127),
    ]
    assert [child.status for child in children] == statuses[::-1]
    for child in children:
        child.release()


async def test_cancelled_wait(reaper: Reaper) -> None:
    """Cancelling one who waits takes the status from nobody else."""
    child = shell(reaper, "exit 4")
    waiting = asyncio.create_task(child.wait())
    await asyncio.sleep(0)
    waiting.cancel()
    assert await child.wait() == ExitStatus(code=4)
    assert await child.wait() == ExitStatus(code=4)
    child.release()


async def test_environment_and_folder(reaper: Reaper, tmp_path: Path) -> None:
    """A child has the environment and working directory it was given, its own group, and our session."""
    script = 'echo "$PWD $GREETING" > out; exit 0'
    child = Child.start(["sh", "-c", script], reaper=reaper, env={"GREETING": "hello"}, cwd=tmp_path)
    assert os.getpgid(child.pid) == child.pid
    assert os.getsid(child.pid) == os.getsid(0)
    await child.wait()
    assert (tmp_path / "out").read_text() == f"{tmp_path} hello\n"
    child.release()


async def test_signal_is_sent_once(reaper: Reaper, tmp_path: Path) -> None:
    """A signal reaches the program once, its own children not at all, and nobody once it has ended."""
    out = tmp_path / "out"
    script = """
        trap 'echo parent >> "$OUT"; stop=1' TERM
        (trap 'echo child >> "$OUT"; exit' TERM; echo up >> "$OUT"; while [ -e "$OUT" ]; do sleep 0.01; done) &
        for n in $(seq 2000); do [ -z "$stop" ] || break; sleep 0.01; done
        exit 9
    """
    child = shell(reaper, script, OUT=str(out))
    await wait_until_async(lambda: out.exists() and "up" in out.read_text())
    assert child.send(signal.SIGTERM)
    assert await child.wait() == ExitStatus(code=9)
    assert out.read_text() == "up\nparent\n"
    assert not child.send(signal.SIGTERM)
    out.unlink()
    await wait_until_async(lambda: not child.group_members())
    child.release()


async def test_kill_group(reaper: Reaper) -> None:
    """Killing the group ends the program and what it started, also what it left behind.

    Seen to fail with `os.kill(self.pid, ...)` in kill_group: the grandchild lived on.
    """
    child = shell(reaper, "sleep 60 & sleep 60 & wait")
    await wait_until_async(lambda: len(child.group_members()) == 2)
    child.kill_group()
    assert await child.wait() == ExitStatus(signal=signal.SIGKILL)
    await wait_until_async(lambda: not child.group_members())
    child.release()

    child = shell(reaper, "sleep 60 & exit 5")
    assert await child.wait() == ExitStatus(code=5)
    assert len(child.group_members()) == 1
    child.kill_group(signal.SIGTERM)
    await wait_until_async(lambda: not child.group_members())
    child.release()


async def test_pid_is_kept_until_release(reaper: Reaper) -> None:
    """An ended child stays a zombie, so that its number names nobody else, and is collected by release.

    Seen to fail without WNOWAIT in the reaper: the process was gone before release, and a kill of its group
    could have hit another's.
    """
    child = shell(reaper, "exit 1")
    await child.wait()
    zombie = read_process(child.pid)
    assert zombie is not None
    assert zombie.ended
    child.kill_group()
    child.release()
    child.release()
    assert read_process(child.pid) is None
    child.kill_group()
    assert child.group_members() == []


async def test_release_of_a_running_child(reaper: Reaper) -> None:
    """A child that runs is not let go of."""
    child = shell(reaper, "sleep 60")
    child.release()
    child.kill_group()
    assert await child.wait() == ExitStatus(signal=signal.SIGKILL)
    child.release()


async def test_status_stolen(reaper: Reaper) -> None:
    """A child that other code collected has failed as far as anybody knows; whoever waits is told."""
    child = shell(reaper, "exit 0")
    os.waitpid(child.pid, 0)  # noqa: ASYNC222 - other code that knows nothing of the loop
    assert await child.wait() == STATUS_LOST
    assert STATUS_LOST.shell_code == 255
    child.release()


async def test_children_leak_nothing(reaper: Reaper) -> None:
    """A hundred children leave no descriptor, thread or zombie behind."""

    async def run_some(number: int) -> None:
        children = [Child.start(["true"], reaper=reaper) for _ in range(number)]
        for child in children:
            await child.wait()
            child.release()

    await run_some(1)
    before = in_use()
    await run_some(100)
    assert in_use() == before


async def test_closed_reaper_leaves_nobody_waiting() -> None:
    """When the reaper closes before a child has ended, who waits is told that its status is lost."""
    with Reaper(asyncio.get_running_loop(), adopt=False) as reaper:
        child = shell(reaper, "sleep 60")
        waiting = asyncio.create_task(child.wait())
        await asyncio.sleep(0)
    assert await asyncio.wait_for(waiting, 10) == STATUS_LOST
    child.kill_group()
    os.waitpid(child.pid, 0)  # noqa: ASYNC222 - it was killed


async def test_command_not_found(reaper: Reaper, tmp_path: Path) -> None:
    """A missing program, and a script whose interpreter is missing, are exit 127 with the reason."""
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    for command, reason in (
        ("no-such-program-anywhere", "No such file or directory"),
        (str(tmp_path / "missing"), "No such file or directory"),
        (str(script), "its interpreter is missing"),
    ):
        with pytest.raises(CommandNotFound, match=reason) as failed:
            Child.start([command, "argument"], reaper=reaper)
        assert failed.value.exit_code == 127


async def test_command_not_executable(reaper: Reaper, tmp_path: Path) -> None:
    """A file without permission, a folder, a file that is no program, and a bad working directory are exit 126."""
    plain, garbage = tmp_path / "plain", tmp_path / "garbage"
    plain.write_text("#!/bin/sh\n")
    plain.chmod(0o644)
    garbage.write_bytes(b"\x00\x01\x02")
    garbage.chmod(0o755)
    for command, cwd, reason in (
        (plain, None, "Permission denied"),
        (tmp_path, None, "Permission denied"),
        (garbage, None, "Exec format error"),
        ("true", tmp_path / "missing", "its working directory .*missing: No such file"),
    ):
        with pytest.raises(CommandNotExecutable, match=reason) as failed:
            Child.start([str(command)], reaper=reaper, cwd=cwd)
        assert failed.value.exit_code == 126
