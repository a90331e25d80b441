"""The HTTP interface: what can be looked at over TCP, and what changes state over a private Unix socket only.

| path | TCP | socket | answer |
|---|---|---|---|
| GET /healthz | yes | yes | 200 while the process runs; never depends on the store |
| GET /readyz | yes | yes | 200 when ready, else 503; JSON with `ready` and `reason` |
| GET /status | yes | yes | JSON |
| GET /metrics | yes | yes | Prometheus' text format, or OpenMetrics |
| GET / | yes | yes | a page to look at |
| POST /sync?timeout_seconds=60 | no | yes | JSON, when all that was committed at the call is durable |
| POST /snapshot | no | yes | JSON, when a snapshot is durable |
| POST /prune?limit=20 | no | yes | JSON, when what retention lets go is deleted; `limit` is of single objects named |

An error is JSON with `error` (the class), `message` and `exit_code`.

Taking an address and answering there are two steps. One that is taken already, by another replicad perhaps, has to be
found before anything is done; what answers takes a twentieth of a second to load, and is not needed for that.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from replicad.errors import UsageError
from replicad.lean import without_trusted_roots
from replicad.observe.events import HTTP_STARTED
from replicad.observe.logging import get_logger
from replicad.observe.scrub import Scrubber
from replicad.observe.sockets import PrivateSocket, listen_on_tcp

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping
    from pathlib import Path

    from aiohttp.web import AppRunner

    from replicad.observe.answers import Answers
    from replicad.observe.metrics import Metrics

_CLOSE_SECONDS = 2.0  # beyond the half a second that requests are given


class Control(Protocol):
    """What the interface asks of the daemon. All of it is called on the event loop."""

    def status(self) -> Mapping[str, object]:
        """Return what is going on, as JSON-like values; at once, without asking the store."""
        ...

    def ready(self) -> tuple[bool, str]:
        """Return whether the application was started and capture runs, and if not, why."""
        ...

    async def sync(self, *, timeout_seconds: float) -> Mapping[str, object]:
        """Return when all that is committed now is durable.

        Raises:
            NotReady: it was not within the time.
        """
        ...

    async def snapshot(self) -> Mapping[str, object]:
        """Take a snapshot of each database; return when it is durable."""
        ...

    async def prune(self, *, limit: int) -> Mapping[str, object]:
        """Delete what retention lets go; return what went and what stayed, and at most `limit` objects of each."""
        ...


class HttpServer:
    """Serves a Control and its Metrics on a TCP address, a Unix socket, or both."""

    def __init__(self, control: Control, metrics: Metrics, *, scrubber: Scrubber | None = None) -> None:
        self._control = control
        self._metrics = metrics
        self._scrubber = scrubber or Scrubber()
        self._log = get_logger()
        self._listeners: list[socket.socket] = []
        self._private: PrivateSocket | None = None
        self._runners: list[AppRunner] = []

    async def listen(self, host: str, port: int) -> int:
        """Take a TCP address, for what changes nothing; return the port, which port 0 leaves to the system.

        Raises:
            UsageError: the address is taken, or none of this machine's.
        """
        try:
            listeners = await asyncio.to_thread(listen_on_tcp, host, port)
        except OSError as error:
            raise UsageError(
                where="http_listen",
                expected="an address that is free",
                found=f"{host}:{port}: {error.strerror or error}",
                hint="Set http_listen to another address, or to off.",
            ) from error
        self._listeners += listeners
        taken: int = listeners[0].getsockname()[1]
        self._log.info(HTTP_STARTED, host=host, port=taken)
        return taken

    async def control(self, path: Path) -> None:
        """Take a Unix socket with mode 0600, for everything.

        Raises:
            AlreadyRunning: another daemon answers there.
            UsageError: the path is too long or taken by something else.
            FileUnusable: the folder is missing or read-only.
        """
        self._private = await asyncio.to_thread(PrivateSocket, path)
        self._log.info(HTTP_STARTED, control_socket=str(path))

    async def serve(self) -> None:
        """Answer at the addresses taken, those first who connected before this."""
        answers = await asyncio.to_thread(self._load_answers)
        for listener in self._listeners:
            self._runners.append(await answers.on(listener, answers.reading()))
        if self._private is not None:
            self._runners.append(await answers.on(self._private.listener, answers.all()))

    async def close(self) -> None:
        """End all requests, politely for half a second, and take the socket away. Safe to repeat."""
        runners, self._runners = self._runners, []
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await asyncio.gather(*(runner.cleanup() for runner in runners))
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        if self._private is not None:
            await asyncio.to_thread(self._private.close)
            self._private = None

    def _load_answers(self) -> Answers:
        with without_trusted_roots():
            from replicad.observe.answers import Answers  # noqa: PLC0415 - see above

        return Answers(self._control, self._metrics, self._scrubber)
