"""A child process in a process group of its own, on our standard input, output and error."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shlex
import signal
import subprocess
from typing import TYPE_CHECKING

from replicad.errors import CommandNotExecutable, CommandNotFound
from replicad.host.processes import list_processes
from replicad.host.terminal import own_terminal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from replicad.host.exitstatus import ExitStatus
    from replicad.host.reaper import Reaper


class Child:
    """A running program, made by `start`; on the event loop only.

    It leads a process group of its own: a signal typed at the terminal or sent to our group does not reach it
    a second time, and all that it started can be killed with it. On a terminal it gets the foreground.
    """

    def __init__(self, process: subprocess.Popen[bytes], reaper: Reaper) -> None:
        self.pid = process.pid
        self.status: ExitStatus | None = None
        self._process = process
        self._reaper = reaper
        self._released = False
        self._ended: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()
        self._terminal = own_terminal()
        reaper.own(self.pid, self._on_end, self._on_stop if self._terminal else None)
        if self._terminal:
            self._terminal.lend(self.pid)

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        *,
        reaper: Reaper,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Child:
        """Start a program; the event loop waits for its fork and exec, a few milliseconds.

        Args:
            command: program (looked for on PATH) and arguments, at least one.
            reaper: collects its status; open.
            env: its whole environment; None for ours.
            cwd: its working directory; None for ours.

        Raises:
            CommandNotFound: there is no such program, or the interpreter in its first line is missing.
            CommandNotExecutable: it is no program, may not be executed, or the working directory is unusable.
        """
        try:
            # no exit without `release`: the reaper collects, never Popen
            process = subprocess.Popen(command, env=env, cwd=cwd, process_group=0)  # noqa: S603 - the user's own
        except OSError as error:
            raise _not_started(command, error, cwd) from error
        return cls(process, reaper)

    async def wait(self) -> ExitStatus:
        """Return how it ended, once it has. Its pid stays its own until `release`."""
        return await asyncio.shield(self._ended)

    def send(self, signum: int) -> bool:
        """Send a signal to the program itself, once; return whether it still ran."""
        if self.status is not None:
            return False
        with contextlib.suppress(PermissionError):  # it changed its user
            os.kill(self.pid, signum)
        return True

    def kill_group(self, signum: int = signal.SIGKILL) -> None:
        """Send a signal to the program and to all that it started and that stayed in its group."""
        if not self._released:
            # PermissionError: every process of the group changed its user
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signum)

    def group_members(self) -> list[int]:
        """Return the processes of its group that run, itself excepted; none where there is no /proc."""
        if self._released:
            return []
        return [entry.pid for entry in list_processes() if entry.group == self.pid != entry.pid and not entry.ended]

    def release(self) -> None:
        """Collect the program that has ended; nothing may be signalled through this object from here on."""
        if self.status is not None and not self._released:
            self._released = True
            self._reaper.release(self.pid)

    def _on_end(self, status: ExitStatus) -> None:
        self.status = status
        self._process.returncode = status.shell_code  # so that Popen does not look for it
        if self._terminal:
            self._terminal.take_back()
        self._ended.set_result(status)

    def _on_stop(self) -> None:
        if self._terminal:
            self._terminal.stop_together(self.pid)


def _not_started(command: Sequence[str], error: OSError, cwd: Path | None) -> CommandNotFound | CommandNotExecutable:
    shown = shlex.quote(command[0])
    reason = error.strerror or repr(error)
    if cwd is not None and str(error.filename) == str(cwd):
        return CommandNotExecutable(command=shown, found=f"its working directory {cwd}: {reason}")
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        # a script whose #! line names a missing interpreter is "not found" to the kernel too
        found = "its interpreter is missing" if os.path.exists(command[0]) else reason  # noqa: PTH110 - as exec has it
        return CommandNotFound(command=shown, found=found)
    return CommandNotExecutable(command=shown, found=reason)
