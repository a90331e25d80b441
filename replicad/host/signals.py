"""Signals sent to this process, as callbacks on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from signal import SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2
from typing import TYPE_CHECKING, Final, Self

import structlog

from replicad.observe import events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STOP_SIGNALS: Final = frozenset({SIGTERM, SIGINT})
"""Mean: stop, whoever gets them. Platforms send one of the two and kill after a grace of 5 to 30 s."""

FORWARDED: Final = (SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2)
"""What an application may want to know of; caught from `open` on, so that none ends replicad itself."""

_STOP_WHEN_ALONE: Final = frozenset({SIGHUP, SIGQUIT})

_log = structlog.get_logger(__name__)


class Signals:
    """Signals from `open` to `close`, on the main thread's event loop, one object per process.

    The first stop signal sets `stopping`; a second one, of either kind, sets `hurry`. SIGHUP and SIGQUIT go to
    the subscribers, an application has its own ideas about them; without any subscriber they mean stop. A
    signal that is ignored at the start (nohup, a shell's `&`) stays ignored, except SIGTERM.
    """

    def __init__(self) -> None:
        self.stop_signal: signal.Signals | None = None
        self.stopping = asyncio.Event()
        self.hurry = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._caught: list[signal.Signals] = []
        self._subscribers: list[Callable[[signal.Signals], None]] = []

    def open(self) -> None:
        """Begin to catch."""
        for signum in FORWARDED:
            if signum is SIGTERM or signal.getsignal(signum) is not signal.SIG_IGN:
                self._loop.add_signal_handler(signum, self._on_signal, signum)
                self._caught.append(signum)

    def close(self) -> None:
        """Give every signal its default meaning again. Safe to repeat."""
        while self._caught:
            self._loop.remove_signal_handler(self._caught.pop())

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def subscribe(self, callback: Callable[[signal.Signals], None]) -> Iterator[None]:
        """Call something for every signal caught, in the order they came, while the context lasts."""
        self._subscribers.append(callback)
        try:
            yield
        finally:
            self._subscribers.remove(callback)

    def _on_signal(self, signum: signal.Signals) -> None:
        if signum in STOP_SIGNALS or (signum in _STOP_WHEN_ALONE and not self._subscribers):
            if self.stop_signal is None:
                self.stop_signal = signum
                self.stopping.set()
                _log.info(events.STOPPING, signal=signum.name)
            else:
                self.hurry.set()
        for callback in tuple(self._subscribers):
            callback(signum)
