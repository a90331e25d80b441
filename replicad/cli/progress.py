"""How far a restore or a push is: a bar on a terminal, a log line now and then elsewhere, on standard error both."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from replicad.observe.events import RESTORE_PROGRESSED
from replicad.observe.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from replicad.restore.progress import Progress

_LINE_SECONDS = 5.0


def progress_for(stream: TextIO, name: str, *, verb: str = "restoring", event: str = RESTORE_PROGRESSED) -> Progress:
    """Return what shows the progress of work on the database `name` on a stream: a bar with a verb, or log lines."""
    return Bar(stream, f"{verb} {name}") if stream.isatty() else Lines(name, event=event)


class Bar:
    """A bar with size, speed and time left."""

    def __init__(self, stream: TextIO, title: str) -> None:
        # Imported here: only a terminal needs it.
        from rich.console import Console  # noqa: PLC0415
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        self._title = title
        self._bar: RichProgress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(file=stream),
            transient=True,
        )
        self._task: TaskID | None = None

    def started(self, total_bytes: int) -> None:
        """Show the bar, from the beginning."""
        if self._task is None:
            self._bar.start()
            self._task = self._bar.add_task(self._title, total=total_bytes)
        else:
            self._bar.reset(self._task, total=total_bytes)

    def advanced(self, n_bytes: int) -> None:
        """Move it on."""
        if self._task is not None:
            self._bar.advance(self._task, n_bytes)

    def finished(self) -> None:
        """Take it away."""
        self._bar.stop()


class Lines:
    """A log line at most every few seconds."""

    def __init__(
        self, name: str, monotonic: Callable[[], float] = time.monotonic, *, event: str = RESTORE_PROGRESSED
    ) -> None:
        self._event = event
        self._log = get_logger(database=name)
        self._monotonic = monotonic
        self._total_bytes = 0
        self._done_bytes = 0
        self._said_at = monotonic()

    def started(self, total_bytes: int) -> None:
        """Begin to count, from zero."""
        self._total_bytes, self._done_bytes = total_bytes, 0

    def advanced(self, n_bytes: int) -> None:
        """Count, and say so when the last line is long ago."""
        self._done_bytes += n_bytes
        now = self._monotonic()
        if now - self._said_at >= _LINE_SECONDS:
            self._said_at = now
            self._log.info(self._event, done_bytes=self._done_bytes, total_bytes=self._total_bytes)

    def finished(self) -> None:
        """Say nothing: the end has an event of its own."""
