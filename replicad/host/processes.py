"""Which processes there are, as /proc tells it: memory, so reading it does not wait for a disk."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessEntry:
    """One line of the process table."""

    pid: int
    state: str  # one letter, proc(5)
    parent: int
    group: int

    @property
    def ended(self) -> bool:
        """Whether it is a zombie: ended, its status not yet collected."""
        return self.state in {"Z", "X"}


def read_process(pid: int) -> ProcessEntry | None:
    """Return one process, or None when there is none (any more)."""
    try:
        line = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # the second field is the program's name in parentheses and may hold anything, parentheses too
    fields = line[line.rindex(")") + 2 :].split()
    return ProcessEntry(pid=pid, state=fields[0], parent=int(fields[1]), group=int(fields[2]))


def list_processes() -> list[ProcessEntry]:
    """Return all processes of this pid namespace; none where /proc is missing or shows another namespace's."""
    try:
        ours = (_PROC / "self").readlink().name == str(os.getpid())
        names = [folder.name for folder in _PROC.iterdir()] if ours else []
    except OSError:
        return []
    entries = (read_process(int(name)) for name in names if name.isdigit())
    return [entry for entry in entries if entry is not None]
