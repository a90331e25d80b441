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

An error is JSON with `error` (the class), `message` and `exit_code`.
"""

from __future__ import annotations

import asyncio
import json
import math
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

from aiohttp import web

from replicad.errors import NotReady, ReplicadError, UsageError
from replicad.observe.events import HTTP_STARTED, REQUEST_FAILED
from replicad.observe.logging import get_logger
from replicad.observe.scrub import Scrubber
from replicad.observe.sockets import PrivateSocket

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from aiohttp.typedefs import Handler

    from replicad.observe.metrics import Metrics

SYNC_SECONDS = 60.0
"""How long a sync waits when the request does not say."""

_MAX_SYNC_SECONDS = 3600.0
_CLOSE_SECONDS = 0.5  # what a request may still take when the daemon stops
_KEEPALIVE_SECONDS = 15.0
_MAX_BODY_BYTES = 64 << 10


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


class HttpServer:
    """Serves a Control and its Metrics on a TCP address, a Unix socket, or both."""

    def __init__(self, control: Control, metrics: Metrics, *, scrubber: Scrubber | None = None) -> None:
        self._control = control
        self._metrics = metrics
        self._scrubber = scrubber or Scrubber()
        self._log = get_logger()
        self._runners: list[web.AppRunner] = []
        self._socket: PrivateSocket | None = None

    async def listen(self, host: str, port: int) -> int:
        """Serve what changes nothing on a TCP address; return the port, which port 0 leaves to the system.

        Raises:
            UsageError: the address is taken, or none of this machine's.
        """
        runner = await self._runner(self._reading())
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise UsageError(
                where="http_listen",
                expected="an address that is free",
                found=f"{host}:{port}: {error.strerror or error}",
                hint="Set http_listen to another address, or to off.",
            ) from error
        self._log.info(HTTP_STARTED, host=host, port=site.port)
        return site.port

    async def control(self, path: Path) -> None:
        """Serve everything on a Unix socket with mode 0600.

        Raises:
            AlreadyRunning: another daemon answers there.
            UsageError: the path is too long or taken by something else.
            FileUnusable: the folder is missing or read-only.
        """
        self._socket = await asyncio.to_thread(PrivateSocket, path)
        routes = [*self._reading(), web.post("/sync", self._sync), web.post("/snapshot", self._snapshot)]
        await web.SockSite(await self._runner(routes), self._socket.listener).start()
        self._log.info(HTTP_STARTED, control_socket=str(path))

    async def close(self) -> None:
        """End all requests, politely for half a second, and take the socket away. Safe to repeat."""
        runners, self._runners = self._runners, []
        with suppress(TimeoutError):
            async with asyncio.timeout(4 * _CLOSE_SECONDS):
                await asyncio.gather(*(runner.cleanup() for runner in runners))
        if self._socket is not None:
            await asyncio.to_thread(self._socket.close)
            self._socket = None

    async def _runner(self, routes: list[web.RouteDef]) -> web.AppRunner:
        app = web.Application(client_max_size=_MAX_BODY_BYTES, middlewares=[self._answer_errors])
        app.add_routes(routes)
        runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=_CLOSE_SECONDS, keepalive_timeout=_KEEPALIVE_SECONDS
        )
        await runner.setup()
        self._runners.append(runner)
        return runner

    def _reading(self) -> list[web.RouteDef]:
        return [
            web.get("/", self._page),
            web.get("/healthz", self._healthz),
            web.get("/readyz", self._readyz),
            web.get("/status", self._status),
            web.get("/metrics", self._metrics_text),
        ]

    @web.middleware
    async def _answer_errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except ReplicadError as error:
            return self._error(type(error).__name__, str(error), error.exit_code, _http_status(error))
        except web.HTTPException as error:
            return self._error("HTTPError", f"{request.method} {request.path}: {error.reason}", 1, error.status)
        except Exception as error:  # noqa: BLE001 - isolated: a fault in an answer must not reach replication
            self._log.exception(REQUEST_FAILED, method=request.method, path=request.path)
            return self._error(type(error).__name__, "an unexpected error, see the log", 1, 500)

    def _error(self, error: str, message: str, exit_code: int, status: int) -> web.Response:
        return self._json({"error": error, "message": message, "exit_code": exit_code}, status=status)

    def _json(self, body: Mapping[str, object], *, status: int = 200) -> web.Response:
        text = json.dumps(self._scrubber.value(dict(body))) + "\n"
        return web.json_response(text=text, status=status, headers={"Cache-Control": "no-store"})

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _request: web.Request) -> web.Response:
        ready, reason = self._control.ready()
        return self._json({"ready": ready, "reason": reason}, status=200 if ready else 503)

    async def _status(self, _request: web.Request) -> web.Response:
        return self._json(self._control.status())

    async def _page(self, _request: web.Request) -> web.Response:
        ready, reason = self._control.ready()
        status = self._scrubber.value(dict(self._control.status()))
        from replicad.observe.page import POLICY, render  # noqa: PLC0415 - few look, and it loads a table of entities

        page = render(status if isinstance(status, dict) else {}, ready=ready, reason=reason)
        return web.Response(text=page, content_type="text/html", headers={"Content-Security-Policy": POLICY})

    async def _metrics_text(self, request: web.Request) -> web.Response:
        # In a thread: a scrape of many databases takes longer than a commit may wait.
        body, content_type = await asyncio.to_thread(self._metrics.render, request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _sync(self, request: web.Request) -> web.Response:
        text = request.query.get("timeout_seconds", str(SYNC_SECONDS))
        try:
            timeout_seconds = float(text)
        except ValueError:
            timeout_seconds = math.nan
        if not 0 <= timeout_seconds <= _MAX_SYNC_SECONDS:
            raise UsageError(
                where="timeout_seconds",
                expected=f"a number from 0 to {_MAX_SYNC_SECONDS:g}",
                found=repr(text),
                hint=f"Left out, it is {SYNC_SECONDS:g}.",
            )
        return self._json(await self._control.sync(timeout_seconds=timeout_seconds))

    async def _snapshot(self, _request: web.Request) -> web.Response:
        return self._json(await self._control.snapshot())


def _http_status(error: ReplicadError) -> HTTPStatus:
    if isinstance(error, UsageError):
        return HTTPStatus.BAD_REQUEST
    return HTTPStatus.SERVICE_UNAVAILABLE if isinstance(error, NotReady) else HTTPStatus.INTERNAL_SERVER_ERROR
