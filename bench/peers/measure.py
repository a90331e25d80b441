"""Measuring processes from outside, and the arithmetic of percentiles."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.process import cpu_seconds, memory_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TICKS = os.sysconf("SC_CLK_TCK")
_PATIENCE_SECONDS = 120.0
RESTORE_SECONDS = 1_800.0
"""How long one is waited for."""

_SHOWN = 2_000  # characters of what a command said last


def cpu_used(pid: int) -> float:
    """Return the CPU seconds of a process: to the nanosecond, or with ended threads and children if that is more."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return max(cpu_seconds(pid), sum(int(field) for field in fields[11:15]) / _TICKS)
    except (OSError, ValueError):
        return 0.0


def forget_peak(pid: int) -> None:
    """Let the peak of a process's memory begin again at what it holds now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_bytes(pid: int) -> int:
    """Return the peak of its resident memory; 0 once it is gone."""
    try:
        return memory_bytes(pid, "VmHWM")
    except OSError:
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A command that ran to its end."""

    seconds: float
    began: float
    cpu: float
    peak: int
    output: str


class CommandFailed(RuntimeError):
    """A command that was measured ended with another status than 0."""


class TookTooLong(CommandFailed):
    """It was broken off."""


def run(
    argv: Sequence[str], environment: Mapping[str, str], *, log: Path, seconds: float = RESTORE_SECONDS
) -> Finished:
    """Run a command and measure it; what it says goes to `log`.

    Raises:
        CommandFailed: It failed, with the end of what it said.
        TookTooLong: It did not end within so many seconds.
    """
    in_time = True
    with log.open("w") as said:
        began = time.monotonic()
        process = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=said, text=True)
        peak, used = 0, 0.0
        with process:
            while process.poll() is None:
                peak, used = max(peak, _tree_peak(process.pid)), max(used, cpu_used(process.pid))
                if time.monotonic() - began > seconds:
                    in_time = False
                    process.kill()
                time.sleep(0.005)
            took = time.monotonic() - began
            output = process.stdout.read() if process.stdout is not None else ""
    if not in_time:
        raise TookTooLong(f"{' '.join(argv)} did not end within {seconds:.0f} s")
    if process.returncode:
        said_last = f"{output[-_SHOWN:]} {log.read_text()[-_SHOWN:]}".strip()
        raise CommandFailed(f"{' '.join(argv)} ended with {process.returncode}: {said_last}")
    return Finished(seconds=took, began=began, cpu=used, peak=peak, output=output)


def _tree_peak(pid: int) -> int:
    """Return the largest peak of a process and its children: a shell's pipeline is as large as its largest part."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        children = []
    return max([peak_bytes(pid), *(peak_bytes(int(child)) for child in children)])


def stop(process: subprocess.Popen[bytes], how: int = signal.SIGTERM) -> None:
    """End a process and the group it leads."""
    try:
        os.killpg(process.pid, how)
        process.wait(_PATIENCE_SECONDS)
    except (ProcessLookupError, subprocess.TimeoutExpired):
        process.kill()
        process.wait()


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which this share lies; 0 of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
