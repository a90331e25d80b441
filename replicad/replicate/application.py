"""The application that replicad stands in front of: start it, pass signals on, see it end, and all it started.

The order at a stop signal: the application gets the signal, flushing starts beside it, the application has
`stop_timeout_seconds`, then its group is killed; what it left running is ended too, because it could still
write to the database after the final flush. The status reported is always the application's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING

import structlog

from replicad.errors import HookFailed, Stopped
from replicad.host.child import Child
from replicad.host.exitstatus import ExitStatus
from replicad.host.signals import STOP_SIGNALS
from replicad.observe import events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from replicad.host.reaper import Reaper
    from replicad.host.signals import Signals

LEFTOVER_SECONDS = 3.0
"""What processes get to end by themselves that the application left running, and a hook that is stopped."""

_LOOK_AGAIN_SECONDS = 0.02

_log = structlog.get_logger(__name__)


class Application:
    """Runs the application's command, one at a time, and the hooks before it.

    Args:
        reaper: collects their statuses; open. When it adopts orphans, those that the application leaves
            behind in other process groups are ended as well.
        environment: the whole environment of command and hooks; None for ours.
        folder: their working directory; None for ours.
    """

    def __init__(
        self, reaper: Reaper, *, environment: Mapping[str, str] | None = None, folder: Path | None = None
    ) -> None:
        self._reaper = reaper
        self._environment = environment
        self._folder = folder
        self._ending: _Ending | None = None
        self._stopped = asyncio.Event()  # for good
        self._idle = asyncio.Event()  # nothing of it runs
        self._idle.set()

    async def run(
        self,
        command: Sequence[str],
        *,
        on_signal: Callable[[], None],
        stop_timeout_seconds: float,
        signals: Signals,
    ) -> ExitStatus:
        """Start the command, and return how it ended once it and all it left running have ended.

        After `stop_and_wait` nothing is started: it has ended by SIGTERM before its first step.
        Every signal caught is passed on once. The first SIGTERM or SIGINT starts the timeout, the next one
        kills at once. Cancelled, it stops the application as SIGTERM would and raises CancelledError when that
        is done; cancelled again, it kills at once.

        Args:
            command: program and arguments.
            on_signal: called at the first stop signal, after it was passed on; must not block or raise.
            stop_timeout_seconds: from the first stop signal to SIGKILL.
            signals: open.

        Raises:
            Stopped: a stop signal came before the start; nothing was started.
            CommandNotFound: see `Child.start`.
            CommandNotExecutable: likewise.
        """
        if signals.stop_signal is not None:
            raise Stopped(signal=signals.stop_signal.name, stage="start-up")
        if self._stopped.is_set():
            return ExitStatus(signal=signal.SIGTERM)
        child = self._start(command)
        ending = _Ending(child, stop_timeout_seconds)
        _log.info(events.APP_STARTED, pid=child.pid, program=command[0])  # arguments may hold secrets

        def pass_on(signum: signal.Signals) -> None:
            if child.send(signum):
                _log.info(events.APP_SIGNALLED, pid=child.pid, signal=signum.name)
            if signals.hurry.is_set():
                ending.kill()
            elif signum in STOP_SIGNALS:
                ending.begin()
                on_signal()

        with self._running(ending), signals.subscribe(pass_on):
            status = await ending.wait()
            await self._end_leftovers(child, ending)
        _log.info(events.APP_STOPPED, pid=child.pid, status=status.shell_code)
        ending.raise_if_cancelled()
        return status

    def stop(self) -> None:
        """Stop the application or the hook that runs, if any, as SIGTERM would."""
        if self._ending is not None:
            self._ending.stop()

    async def stop_and_wait(self) -> None:
        """Stop it likewise, for a handover or when fenced; return when nothing of it runs. Nothing is started later."""
        self._stopped.set()
        self.stop()
        await self._idle.wait()

    async def run_hook(
        self, name: str, command: str, *, signals: Signals, timeout_seconds: float | None = None
    ) -> None:
        """Run a shell command to its end: `on_first_start` or `before_start`.

        What it leaves running in the background when it succeeds goes on: it may be a service that the
        application needs. When it fails or is stopped, all of its group is ended. After `stop_and_wait` it is not
        started, and how it ended does not matter.

        Args:
            name: the setting's name, for messages.
            command: given to `sh -c`; our standard input, output and error are its own.
            signals: open. A stop signal ends the hook; others are not passed on.
            timeout_seconds: None for no limit.

        Raises:
            Stopped: by a signal.
            HookFailed: its status was not zero, or it did not end in time.
            CommandNotFound: there is no `sh`.
        """
        if signals.stop_signal is not None:
            raise Stopped(signal=signals.stop_signal.name, stage=name)
        if self._stopped.is_set():
            return
        child = self._start(["sh", "-c", command])
        ending = _Ending(child, LEFTOVER_SECONDS, whole_group=True)

        def pass_on(signum: signal.Signals) -> None:
            if signals.hurry.is_set():
                ending.kill()
            elif signum in STOP_SIGNALS:
                ending.stop()

        with self._running(ending), signals.subscribe(pass_on):
            ending.limit(timeout_seconds)
            status = await ending.wait()
            if ending.begun or status.code != 0:
                await self._end_leftovers(child, ending)
        ending.raise_if_cancelled()
        if signals.stop_signal is not None:
            raise Stopped(signal=signals.stop_signal.name, stage=name)
        if self._stopped.is_set():
            return
        if ending.late or status.code != 0:
            found = f"{status}, stopped after {timeout_seconds:g} s" if ending.late else str(status)
            _log.error(events.HOOK_FAILED, hook=name, status=found)
            raise HookFailed(hook=name, status=found)
        _log.info(events.HOOK_DONE, hook=name)

    @contextlib.contextmanager
    def _running(self, ending: _Ending) -> Iterator[None]:
        """Have a child that has been started be the one that `stop_and_wait` stops, until it has ended."""
        self._idle.clear()
        self._ending = ending
        try:
            yield
        finally:
            ending.close()
            self._ending = None
            self._idle.set()

    def _start(self, command: Sequence[str]) -> Child:
        return Child.start(command, reaper=self._reaper, env=self._environment, cwd=self._folder)

    async def _end_leftovers(self, child: Child, ending: _Ending) -> None:
        """End what runs on after the program itself: SIGTERM, and SIGKILL when the grace is over."""
        if not (left := self._leftovers(child)):
            return
        self._signal_leftovers(child, signal.SIGTERM)
        loop = asyncio.get_running_loop()
        kill_at = loop.time() + ending.grace_seconds()
        while left and loop.time() < kill_at + LEFTOVER_SECONDS:
            if ending.killed or loop.time() >= kill_at:
                self._signal_leftovers(child, signal.SIGKILL)
            await ending.pause()
            left = self._leftovers(child)
        _log.warning(events.LEFTOVERS_ENDED, pid=child.pid, still_running=sorted(left))

    def _leftovers(self, child: Child) -> set[int]:
        return {*child.group_members(), *self._reaper.adopted()}

    def _signal_leftovers(self, child: Child, signum: signal.Signals) -> None:
        strays = set(self._reaper.adopted()).difference(child.group_members())
        child.kill_group(signum)
        for pid in strays:
            # they are our children: their numbers are not used again before the reaper has run
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signum)


class _Ending:
    """How one child comes to its end: when it is stopped, when it is killed, and who wanted that."""

    def __init__(self, child: Child, timeout_seconds: float, *, whole_group: bool = False) -> None:
        self.begun = False
        self.killed = False
        self.late = False
        self._child = child
        self._timeout_seconds = timeout_seconds
        self._whole_group = whole_group
        self._loop = asyncio.get_running_loop()
        self._timers: list[asyncio.TimerHandle] = []
        self._cancelled: asyncio.CancelledError | None = None
        self._kill_at = float("inf")

    def begin(self) -> None:
        """Let the time run that the child has from now on; it was told to stop."""
        if not self.begun:
            self.begun = True
            self._kill_at = self._loop.time() + self._timeout_seconds
            self._timers.append(self._loop.call_at(self._kill_at, self.kill))

    def stop(self) -> None:
        """Tell the child to stop, once."""
        if not self.begun:
            self.begin()
            if self._whole_group:
                self._child.kill_group(signal.SIGTERM)
            else:
                self._child.send(signal.SIGTERM)

    def limit(self, timeout_seconds: float | None) -> None:
        """Stop the child when it takes longer than this from now."""
        if timeout_seconds is not None:
            self._timers.append(self._loop.call_later(timeout_seconds, self._on_late))

    def kill(self) -> None:
        """Kill the child and its group now."""
        self.killed = True
        if self._child.status is None:
            _log.warning(events.APP_KILLED, pid=self._child.pid)
        self._child.kill_group()

    def grace_seconds(self) -> float:
        """Return what is left for those that the child leaves behind."""
        return 0.0 if self.killed else max(0.0, min(LEFTOVER_SECONDS, self._kill_at - self._loop.time()))

    async def wait(self) -> ExitStatus:
        """Return the child's status, once it has ended, however often this is cancelled."""
        while True:
            try:
                return await self._child.wait()
            except asyncio.CancelledError as error:
                self._on_cancelled(error)

    async def pause(self) -> None:
        """Wait a moment for others to end."""
        try:
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        except asyncio.CancelledError as error:
            self._on_cancelled(error)

    def raise_if_cancelled(self) -> None:
        """Raise the CancelledError that was held back."""
        if self._cancelled is not None:
            raise self._cancelled

    def close(self) -> None:
        """Let go of the child, which has ended; one that has not, because of an error, is killed."""
        for timer in self._timers:
            timer.cancel()
        if self._child.status is None:
            self._child.kill_group()
        self._child.release()

    def _on_late(self) -> None:
        self.late = True
        self.stop()

    def _on_cancelled(self, error: asyncio.CancelledError) -> None:
        if self._cancelled is None:
            self.stop()
        else:
            self.kill()
        self._cancelled = error
