"""How much memory a process has had."""

from __future__ import annotations

from pathlib import Path


def most_resident_bytes(pid: int | str = "self") -> int:
    """Return the most that it had at a time.

    Not getrusage's: that counts from before the exec, when a child was a copy of a large test process.
    """
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
