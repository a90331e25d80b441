"""The terminal, lent to the application: it then reads, and gets Ctrl-C and Ctrl-Z, as if started by the shell.

The application has a process group of its own, so that all of it can be signalled; a terminal serves one
group at a time and stops any other that reads from it.
"""

from __future__ import annotations

import contextlib
import os
import signal


class Terminal:
    """The controlling terminal on standard input; made by `own_terminal`."""

    def lend(self, group: int) -> None:
        """Make a process group the one that the terminal serves."""
        self._serve(group)
        # it may have read, and been stopped for that, before it got the terminal
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGCONT)

    def take_back(self) -> None:
        """Have the terminal serve our own group again."""
        self._serve(os.getpgrp())

    def stop_together(self, group: int) -> None:
        """Follow an application that Ctrl-Z stopped: stop, and when the shell continues us, continue it.

        PID 1 cannot be stopped; there the application goes on at once.
        """
        self.take_back()
        os.killpg(os.getpgrp(), signal.SIGSTOP)
        # the shell's `fg` (or `bg`) continues here
        with contextlib.suppress(ProcessLookupError):
            if own_terminal() is not None:
                self.lend(group)
            else:
                os.killpg(group, signal.SIGCONT)

    def _serve(self, group: int) -> None:
        # a background group that does this is stopped by SIGTTOU unless it blocks that
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        try:
            with contextlib.suppress(OSError):  # the terminal or the group is gone: nothing left to serve
                os.tcsetpgrp(0, group)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def own_terminal() -> Terminal | None:
    """Return the terminal on standard input when it serves our process group, else None (a pipe, a service, `&`)."""
    try:
        ours = os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return None
    return Terminal() if ours else None
