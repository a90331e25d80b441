"""The one place that waits for child processes: our own, and as PID 1 the orphans of the whole container.

A process that ends stays a zombie until its parent has collected its status, and the status is collected
once. PID 1 (and a subreaper) becomes the parent of every orphan, so it has to collect statuses of processes
it never started, without stealing one that somebody waits for:

- a child started through `Child` is known here. Its status is read without collecting it (WNOWAIT) and the
  zombie kept until `release`: as long as it exists, its pid and its group's number belong to nobody else, so
  that signals sent to either hit the right processes;
- a child that other code in this process started (a credentials program, a test's server) is in our own
  process group, and is left to that code. A shell that started programs in the background and then replaced
  itself by us leaves such children too, for which nobody waits: whatever stays a zombie for
  `patience_seconds` is collected after all;
- anything else is an orphan, and is collected at once.

All of it hangs on SIGCHLD, not on pidfds (missing under gVisor) nor on asyncio's child watchers (changed in
Python 3.12, removed in 3.14). Signals of one kind coalesce, so each one means: look at everything.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from typing import TYPE_CHECKING, Self

from replicad.host.exitstatus import ExitStatus
from replicad.host.processes import list_processes

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from replicad.host.processes import ProcessEntry

PATIENCE_SECONDS = 10.0

STATUS_LOST = ExitStatus(code=255)
"""Reported when other code collected a child of ours, or nobody is there to collect it: never a success."""

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_LOOK = os.WEXITED | os.WNOHANG | os.WNOWAIT


def is_pid_1() -> bool:
    """Return whether this process is its container's init."""
    return os.getpid() == 1


def become_subreaper() -> bool:
    """Have orphans among our descendants become our children, as if we were PID 1; return whether we can."""
    prctl = getattr(ctypes.CDLL(None, use_errno=True), "prctl", None)
    return prctl is not None and prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


class Reaper:
    """Waits for children; on the main thread's event loop, one per process, open while children may end.

    Args:
        loop: the running loop.
        adopt: whether orphans become ours: as PID 1, or after `become_subreaper`.
        patience_seconds: after how long an uncollected child of other code's is taken for abandoned.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, adopt: bool, patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        self.adopt = adopt
        self._loop = loop
        self._patience_seconds = patience_seconds
        self._running: dict[int, Callable[[ExitStatus], None]] = {}
        self._stops: dict[int, Callable[[], None]] = {}
        self._ended: set[int] = set()
        self._elders: set[int] = set()  # children from before this program started
        self._spared: dict[int, float] = {}  # zombies left to other code, and since when
        self._again: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Begin to listen for SIGCHLD."""
        self._elders = {entry.pid for entry in self._children()} if self.adopt else set()
        self._loop.add_signal_handler(signal.SIGCHLD, self.sweep)
        self.sweep()

    def close(self) -> None:
        """Stop listening. Children that still run go on as nobody's, and are reported lost. Safe to repeat."""
        self._loop.remove_signal_handler(signal.SIGCHLD)
        while self._running:
            self._running.popitem()[1](STATUS_LOST)
        self._stops.clear()
        if self._again is not None:
            self._again.cancel()
            self._again = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def own(self, pid: int, ended: Callable[[ExitStatus], None], stopped: Callable[[], None] | None = None) -> None:
        """Report the end of a child, once, on the event loop.

        Called in the same breath as the fork: the loop must not run in between, or the child could end as an
        unknown and its status be lost.

        Args:
            pid: the child's.
            ended: called with its status; the zombie stays until `release`.
            stopped: called each time it is stopped by job control (Ctrl-Z), not ended.
        """
        self._running[pid] = ended
        if stopped is not None:
            self._stops[pid] = stopped

    def release(self, pid: int) -> None:
        """Collect a child that has ended; its pid and its group's number may belong to others from here on."""
        if pid in self._ended:
            self._ended.remove(pid)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)

    def adopted(self) -> list[int]:
        """Return the orphans that became ours and still run, in no order."""
        if not self.adopt:
            return []
        own_group = os.getpgrp()
        return [
            entry.pid
            for entry in self._children()
            if not entry.ended and entry.group != own_group and entry.pid not in self._elders | self._running.keys()
        ]

    def sweep(self) -> None:
        """Look at all children: report those of ours that ended, collect orphans."""
        for pid in list(self._running):
            self._look_at(pid)
        if self.adopt:
            self._collect_orphans()

    def _look_at(self, pid: int) -> None:
        try:
            result = os.waitid(os.P_PID, pid, _LOOK)
        except ChildProcessError:  # other code waited for any child there is
            self._stops.pop(pid, None)
            self._running.pop(pid)(STATUS_LOST)
            return
        if result is not None:
            self._ended.add(pid)
            self._stops.pop(pid, None)
            self._running.pop(pid)(ExitStatus.from_wait(result))
        elif pid in self._stops and os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG) is not None:
            self._stops[pid]()

    def _collect_orphans(self) -> None:
        while True:
            try:
                result = os.waitid(os.P_ALL, 0, _LOOK)
            except ChildProcessError:
                return
            if result is None:
                return
            if not self._collect(result.si_pid, _group(result.si_pid)):
                break
        # one that must stay hides all behind it from waitid: go through the list instead
        zombies = [entry for entry in self._children() if entry.ended]
        pids = {entry.pid for entry in zombies}
        self._spared = {pid: since for pid, since in self._spared.items() if pid in pids}
        for entry in zombies:
            self._collect(entry.pid, entry.group)

    def _collect(self, pid: int, group: int) -> bool:
        """Collect a zombie unless somebody else will; return whether it is gone."""
        if pid in self._ended or pid in self._running:
            return False
        if group == os.getpgrp():
            since = self._spared.setdefault(pid, time.monotonic())
            if time.monotonic() - since < self._patience_seconds:
                self._look_again()
                return False
        self._spared.pop(pid, None)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
        return True

    def _look_again(self) -> None:
        if self._again is None:
            self._again = self._loop.call_later(self._patience_seconds, self._look_now)

    def _look_now(self) -> None:
        self._again = None
        self.sweep()

    def _children(self) -> list[ProcessEntry]:
        own_pid = os.getpid()
        return [entry for entry in list_processes() if entry.parent == own_pid]


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0
