"""How a process ended, and what a shell makes of it."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitStatus:
    """A process's end: by itself with a code, or by a signal. Exactly one of the two is set."""

    code: int | None = None
    signal: signal.Signals | int | None = None

    @classmethod
    def from_wait(cls, result: os.waitid_result) -> ExitStatus:
        """Return what `os.waitid` says about a process that ended."""
        if result.si_code == os.CLD_EXITED:
            return cls(code=result.si_status)
        try:
            return cls(signal=signal.Signals(result.si_status))
        except ValueError:  # a real-time signal
            return cls(signal=result.si_status)

    @property
    def shell_code(self) -> int:
        """The number that `$?` has: the code, or 128 and the signal's number."""
        return self.code if self.code is not None else 128 + int(self.signal or 0)

    def __str__(self) -> str:
        if self.code is not None:
            return str(self.code)
        name = self.signal.name if isinstance(self.signal, signal.Signals) else f"signal {self.signal}"
        return f"{self.shell_code} ({name})"
