from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from replicad.errors import CommandNotFound, HookFailed, Stopped
from replicad.host.exitstatus import ExitStatus
from replicad.host.processes import list_processes, read_process
from replicad.host.reaper import Reaper
from replicad.host.signals import Signals
from replicad.replicate.application import Application
from tests.support.waiting import wait_until, wait_until_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).parents[3]
PROGRAM = [sys.executable, "-m", "tests.support.run_application"]
UNSHARE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]

STUBBORN = """
    trap 'echo term >> "$OUT"' TERM
    trap 'echo int >> "$OUT"' INT
    echo up >> "$OUT"
    for n in $(seq 2000); do sleep 0.01; done
"""

OBEDIENT = """
    trap 'echo term >> "$OUT"; exit 6' TERM
    echo up >> "$OUT"
    for n in $(seq 2000); do sleep 0.01; done
"""


class Stand:
    """An application on a stand: started in this process, writing to a file what it sees."""

    def __init__(self, folder: Path, reaper: Reaper, signals: Signals) -> None:
        self.others = children_of_ours()  # servers that other tests of this session have started
        self.out = folder / "out"
        self.signals = signals
        self.flushes: list[str] = []
        self._tasks: list[asyncio.Task[ExitStatus]] = []
        self.application = Application(reaper, environment=dict(os.environ) | {"OUT": str(self.out)}, folder=folder)

    async def run(self, script: str, *, stop_timeout_seconds: float = 10.0) -> ExitStatus:
        """Run a shell script as the application."""
        return await self.application.run(
            ["sh", "-c", script],
            on_signal=lambda: self.flushes.append("flush"),
            stop_timeout_seconds=stop_timeout_seconds,
            signals=self.signals,
        )

    def start(self, script: str, *, stop_timeout_seconds: float = 10.0) -> asyncio.Task[ExitStatus]:
        """Begin to run a shell script."""
        self._tasks.append(asyncio.create_task(self.run(script, stop_timeout_seconds=stop_timeout_seconds)))
        return self._tasks[-1]

    async def close(self) -> None:
        """Kill what a failed test left running."""
        for task in self._tasks:
            task.cancel()
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def seen(self) -> str:
        """Return what the application wrote."""
        return self.out.read_text() if self.out.exists() else ""

    async def up(self) -> None:
        """Wait until the application has written that it is up."""
        await wait_until_async(lambda: "up\n" in self.seen())


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    """Return a stand with signals caught."""
    with Reaper(asyncio.get_running_loop(), adopt=False) as reaper, Signals() as signals:
        found = Stand(tmp_path, reaper, signals)
        yield found
        await found.close()


def children_of_ours() -> set[int]:
    """Return all processes below this one but zombies."""
    return {entry.pid for entry in list_processes() if entry.parent == os.getpid() and not entry.ended}


async def test_status_is_passed_on(stand: Stand) -> None:
    """The application's own status comes back, whether a code or a signal, and nothing is flushed for it.

    Seen to fail with `ExitStatus.from_wait` taking a signal's number for a code.
    """
    assert await stand.run("exit 0") == ExitStatus(code=0)
    assert await stand.run("exit 42") == ExitStatus(code=42)
    assert await stand.run("kill -SEGV $$") == ExitStatus(signal=signal.SIGSEGV)
    assert stand.flushes == []
    with pytest.raises(CommandNotFound):
        await stand.application.run(
            ["no-such-program-anywhere"], on_signal=lambda: None, stop_timeout_seconds=1, signals=stand.signals
        )


async def test_signals_are_forwarded_once(stand: Stand) -> None:
    """Every signal reaches the application exactly once, and only stop signals start the flush.

    Seen to fail with `child.send` called again 50 ms later: each name was there twice.
    """
    script = """
        for name in HUP QUIT USR1 USR2 INT; do trap "echo $name >> '$OUT'" $name; done
        trap 'echo TERM >> "$OUT"; exit 0' TERM
        echo up >> "$OUT"
        for n in $(seq 2000); do sleep 0.01; done
    """
    task = stand.start(script)
    await stand.up()
    expected = "up\n"
    for name in ("HUP", "QUIT", "USR1", "USR2"):
        os.kill(os.getpid(), signal.Signals[f"SIG{name}"])
        expected += f"{name}\n"
        await wait_until_async(lambda: stand.seen() == expected)  # noqa: B023 - awaited in the same round
    assert stand.flushes == []
    os.kill(os.getpid(), signal.SIGTERM)
    assert await task == ExitStatus(code=0)
    assert stand.seen() == expected + "TERM\n"
    assert len(stand.flushes) == 1


async def test_flush_starts_at_the_signal(stand: Stand) -> None:
    """Flushing starts when the stop signal comes, while the application is still running.

    Seen to fail with `on_signal` called after `ending.wait()`: it was not called before the application's end.
    """
    task = stand.start(STUBBORN, stop_timeout_seconds=60)
    await stand.up()
    os.kill(os.getpid(), signal.SIGTERM)
    await wait_until_async(lambda: len(stand.flushes) == 1)
    await wait_until_async(lambda: stand.seen() == "up\nterm\n")
    assert not task.done()
    os.kill(os.getpid(), signal.SIGTERM)
    await task
    assert len(stand.flushes) == 1


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
async def test_stop_timeout(stand: Stand, signum: signal.Signals) -> None:
    """An application that does not stop is killed when its time is over, with all of its group.

    Seen to fail without the timer in `begin`: it ran on.
    """
    task = stand.start("sleep 60 & " + STUBBORN, stop_timeout_seconds=0.3)
    await stand.up()
    started = time.monotonic()
    os.kill(os.getpid(), signum)
    assert await task == ExitStatus(signal=signal.SIGKILL)
    assert 0.3 <= time.monotonic() - started < 3
    assert children_of_ours() <= stand.others


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_second_signal_kills_at_once(stand: Stand, second: signal.Signals) -> None:
    """A second SIGTERM or SIGINT does not wait for the timeout.

    Seen to fail without the look at `signals.hurry`: it ran on.
    """
    task = stand.start("sleep 60 & " + STUBBORN, stop_timeout_seconds=60)
    await stand.up()
    os.kill(os.getpid(), signal.SIGTERM)
    await wait_until_async(lambda: "term" in stand.seen())
    assert not task.done()
    os.kill(os.getpid(), second)
    assert await asyncio.wait_for(task, 10) == ExitStatus(signal=signal.SIGKILL)


async def test_grandchildren_left_over(stand: Stand, tmp_path: Path) -> None:
    """What the application leaves running is told to stop, and killed if it does not, before the status is reported.

    Seen to fail without `_end_leftovers`: both went on running, and could have written to the database.
    """
    script = """
        (trap 'echo polite >> "$OUT"; exit' TERM; echo 1 > one; for n in $(seq 2000); do sleep 0.01; done) &
        (trap '' TERM; echo 2 > two; for n in $(seq 2000); do sleep 0.01; done) &
        until [ -e one ] && [ -e two ]; do sleep 0.01; done
        echo $! > stubborn
        exit 8
    """
    started = time.monotonic()
    assert await stand.run(script) == ExitStatus(code=8)
    assert 2.5 < time.monotonic() - started < 6
    assert stand.seen() == "polite\n"
    stubborn = read_process(int((tmp_path / "stubborn").read_text()))
    assert stubborn is None or stubborn.ended


async def test_stop_signal_while_leftovers_end(stand: Stand, tmp_path: Path) -> None:
    """A second stop signal kills leftovers at once too."""
    script = """
        (trap '' TERM; echo 1 > one; for n in $(seq 2000); do sleep 0.01; done) &
        until [ -e one ]; do sleep 0.01; done
        trap 'exit 0' TERM
        echo up >> "$OUT"
        for n in $(seq 2000); do sleep 0.01; done
    """
    task = stand.start(script)
    await stand.up()
    started = time.monotonic()
    os.kill(os.getpid(), signal.SIGTERM)
    await wait_until_async(lambda: stand.flushes)
    os.kill(os.getpid(), signal.SIGTERM)
    await task
    assert time.monotonic() - started < 2
    assert (tmp_path / "one").exists()


async def test_stop_without_a_signal(stand: Stand) -> None:
    """`stop` ends the application as SIGTERM would, once, and it can be run again afterwards."""
    stand.application.stop()
    for _ in range(2):
        stand.out.unlink(missing_ok=True)
        task = stand.start(OBEDIENT)
        await stand.up()
        stand.application.stop()
        stand.application.stop()
        assert await task == ExitStatus(code=6)
        assert stand.seen() == "up\nterm\n"
    assert stand.flushes == []


async def test_cancelled_run_stops_the_application(stand: Stand) -> None:
    """A cancelled run leaves no application behind: it is stopped like by SIGTERM, and a second time killed."""
    task = stand.start(OBEDIENT)
    await stand.up()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stand.seen() == "up\nterm\n"

    stand.out.unlink()
    task = stand.start(STUBBORN, stop_timeout_seconds=60)
    await stand.up()
    task.cancel()
    await wait_until_async(lambda: "term" in stand.seen())
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)
    assert children_of_ours() <= stand.others


async def test_stopped_before_the_start(stand: Stand) -> None:
    """After a stop signal neither application nor hook is started any more."""
    os.kill(os.getpid(), signal.SIGTERM)
    await stand.signals.stopping.wait()
    with pytest.raises(Stopped, match="Stopped by SIGTERM during start-up"):
        await stand.run("echo started >> $OUT")
    with pytest.raises(Stopped, match="Stopped by SIGTERM during before_start"):
        await stand.application.run_hook("before_start", "echo started >> $OUT", signals=stand.signals)
    assert stand.seen() == ""


async def test_hook(stand: Stand) -> None:
    """A hook is a shell command in the application's environment; what it leaves in the background goes on."""
    await stand.application.run_hook("before_start", 'sleep 60 & echo $! > "$OUT"', signals=stand.signals)
    service = int(stand.seen())
    os.kill(service, signal.SIGKILL)


@pytest.mark.parametrize(("script", "status"), [("exit 3", "3"), ("kill -KILL $$", r"137 \(SIGKILL\)")])
async def test_hook_that_fails(stand: Stand, script: str, status: str) -> None:
    """A hook that ends with anything but 0 is an error that names it and its status, and leaves nothing running."""
    with pytest.raises(HookFailed, match=f"The on_first_start command ended with status {status};"):
        await stand.application.run_hook("on_first_start", f"sleep 60 & {script}", signals=stand.signals)


async def test_hook_that_takes_too_long(stand: Stand) -> None:
    """A hook past its timeout is stopped with all it started."""
    with pytest.raises(HookFailed, match=r"143 \(SIGTERM\), stopped after 0.2 s"):
        await stand.application.run_hook(
            "before_start", "sleep 60; echo on >> $OUT", signals=stand.signals, timeout_seconds=0.2
        )
    assert stand.seen() == ""


async def test_signal_during_a_hook(stand: Stand) -> None:
    """A stop signal ends a hook with all it started; a second one does not wait for it."""
    script = """
        (trap '' TERM; sleep 60) &
        trap 'echo term >> $OUT' TERM
        echo up >> $OUT
        for n in $(seq 2000); do sleep 0.01; done
    """
    started = time.monotonic()
    task = asyncio.create_task(stand.application.run_hook("before_start", script, signals=stand.signals))
    await stand.up()
    os.kill(os.getpid(), signal.SIGTERM)
    await wait_until_async(lambda: "term" in stand.seen())
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Stopped, match="Stopped by SIGTERM during before_start"):
        await asyncio.wait_for(task, 10)
    assert time.monotonic() - started < 3
    assert children_of_ours() <= stand.others


async def test_cancelled_hook(stand: Stand) -> None:
    """A cancelled hook is ended before the cancellation goes on."""
    task = asyncio.create_task(
        stand.application.run_hook("before_start", "echo up >> $OUT; sleep 60", signals=stand.signals)
    )
    await stand.up()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert children_of_ours() <= stand.others


async def test_what_was_stopped_is_not_started_later(stand: Stand) -> None:
    """TRAP: a handover while a migration runs: it is stopped, and neither another hook nor the application starts.

    What they would write behind the handover is in nobody's history. Seen to fail while only an application that ran
    already was stopped: it started behind the hook.
    """
    hook = asyncio.create_task(stand.application.run_hook("before_start", OBEDIENT, signals=stand.signals))
    await stand.up()
    await asyncio.wait_for(stand.application.stop_and_wait(), 10)
    assert stand.seen() == "up\nterm\n"
    assert children_of_ours() <= stand.others
    await hook
    await stand.application.run_hook("before_start", "echo hook >> $OUT", signals=stand.signals)
    assert (await stand.run("echo application >> $OUT")).shell_code == 128 + signal.SIGTERM
    assert stand.seen() == "up\nterm\n"


def run_whole(*arguments: str, prefix: list[str], stop: signal.Signals | None = None) -> dict[str, object]:
    """Run the application in a process of its own, stop it once it is up, and return its report."""
    with subprocess.Popen(
        [*prefix, *PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if line == "up\n" and stop is not None:
                target = process.pid
                if prefix:  # unshare itself passes nothing on
                    target = wait_until(
                        lambda: next((entry.pid for entry in list_processes() if entry.parent == process.pid), 0)
                    )
                os.kill(target, stop)
        errors = process.stderr.read()
    if "unshare failed" in errors:
        pytest.skip(f"no pid namespace of our own here: {errors.strip()}")
    assert "Traceback" not in errors, errors
    found: dict[str, object] = json.loads(lines[-1])
    assert process.returncode == found["status"]
    return found


@pytest.mark.parametrize("prefix", [[], UNSHARE], ids=["subreaper", "pid 1"])
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_whole_process(prefix: list[str], stop: signal.Signals) -> None:
    """In a process of its own, PID 1 too, SIGTERM and SIGINT stop it, and it exits with the application's status."""
    script = "trap 'exit 5' TERM INT; echo up; for n in $(seq 2000); do sleep 0.01; done"
    report = run_whole("--adopt", "--", "sh", "-c", script, prefix=prefix, stop=stop)
    assert report == {"adopt": True, "status": 5, "flushes": 1, "stop_signal": int(stop)}


@pytest.mark.parametrize("prefix", [[], UNSHARE], ids=["subreaper", "pid 1"])
def test_daemon_left_over(prefix: list[str], tmp_path: Path) -> None:
    """A process that left the application's group and session is ended too where orphans become ours.

    Seen to fail without `reaper.adopted()` among the leftovers: it wrote on after the status was reported.
    """
    out = tmp_path / "out"
    daemon = f"trap 'echo ended >> {out}; exit' TERM; echo up >> {out}; for n in $(seq 2000); do sleep 0.01; done"
    (tmp_path / "daemon").write_text(daemon)
    script = f"(setsid sh {tmp_path / 'daemon'} > /dev/null 2>&1 &); "
    script += f"until [ -e {out} ]; do sleep 0.01; done; exit 2"
    report = run_whole("--adopt", "--", "sh", "-c", script, prefix=prefix)
    assert report["status"] == 2
    assert out.read_text() == "up\nended\n"


def test_signal_during_a_hook_of_pid_1() -> None:
    """SIGTERM during a hook exits with 128 + 15 and never starts the application, as PID 1 too."""
    report = run_whole(
        "--adopt", "--hook", "echo up; sleep 60", "--", "echo", "started", prefix=UNSHARE, stop=signal.SIGTERM
    )
    assert report["status"] == 143
    assert "during before_start" in str(report["error"])
