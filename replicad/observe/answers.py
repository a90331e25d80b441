"""The answers of the HTTP interface, made with aiohttp's server; loaded when there is time, see `http.py`."""

from __future__ import annotations

import asyncio
import json
import math
from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp import web

from replicad.errors import NotReady, ReplicadError, UsageError
from replicad.observe.events import REQUEST_FAILED
from replicad.observe.logging import get_logger

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from aiohttp.typedefs import Handler

    from replicad.observe.http import Control
    from replicad.observe.metrics import Metrics
    from replicad.observe.scrub import Scrubber

SYNC_SECONDS = 60.0
"""How long a sync waits when the request does not say."""

_MAX_SYNC_SECONDS = 3600.0
_CLOSE_SECONDS = 0.5  # what a request may still take when the daemon stops
_KEEPALIVE_SECONDS = 15.0
_MAX_BODY_BYTES = 64 << 10


class Answers:
    """Answers requests for a Control and its Metrics."""

    def __init__(self, control: Control, metrics: Metrics, scrubber: Scrubber) -> None:
        self._control = control
        self._metrics = metrics
        self._scrubber = scrubber
        self._log = get_logger()

    async def on(self, listener: socket.socket, routes: list[web.RouteDef]) -> web.AppRunner:
        """Begin to answer on a listening socket; return what ends it."""
        app = web.Application(client_max_size=_MAX_BODY_BYTES, middlewares=[self._answer_errors])
        app.add_routes(routes)
        runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=_CLOSE_SECONDS, keepalive_timeout=_KEEPALIVE_SECONDS
        )
        await runner.setup()
        await web.SockSite(runner, listener).start()
        return runner

    def reading(self) -> list[web.RouteDef]:
        """Return the routes that change nothing."""
        return [
            web.get("/", self._page),
            web.get("/healthz", self._healthz),
            web.get("/readyz", self._readyz),
            web.get("/status", self._status),
            web.get("/metrics", self._metrics_text),
        ]

    def all(self) -> list[web.RouteDef]:
        """Return every route, for those who may change something."""
        return [
            *self.reading(),
            web.post("/sync", self._sync),
            web.post("/snapshot", self._snapshot),
            web.post("/prune", self._prune),
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

    async def _prune(self, request: web.Request) -> web.Response:
        text = request.query.get("limit", "20")
        if not text.isdecimal():
            hint = "Left out, it is 20; 0 is all."
            raise UsageError(where="limit", expected="a whole number", found=repr(text), hint=hint)
        return self._json(await self._control.prune(limit=int(text)))


def _http_status(error: ReplicadError) -> HTTPStatus:
    if isinstance(error, UsageError):
        return HTTPStatus.BAD_REQUEST
    return HTTPStatus.SERVICE_UNAVAILABLE if isinstance(error, NotReady) else HTTPStatus.INTERNAL_SERVER_ERROR
