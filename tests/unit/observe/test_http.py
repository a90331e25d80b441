from __future__ import annotations

import asyncio
import io
import json
import socket
import stat
import time
from typing import TYPE_CHECKING

import aiohttp
import pytest

from replicad.errors import NotReady, StoreUnreachable, UsageError
from replicad.observe.http import HttpServer
from replicad.observe.logging import configure
from replicad.observe.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

SECRET = "wJalrXUtnFEMIK7MDENG"  # noqa: S105 - an example


class Daemon:
    """A control that answers from its attributes; the daemon's own is tested with the daemon."""

    def __init__(self) -> None:
        self.is_ready = True
        self.error: Exception | None = None
        self.synced: list[float] = []
        self.entered = asyncio.Event()
        self.hang = False

    def status(self) -> Mapping[str, object]:
        """Return a status with a secret in it."""
        if self.error is not None:
            raise self.error
        return {"version": "1.2.3", "databases": [{"name": "app.db", "url": f"https://a:{SECRET}@b", "txid": 7}]}

    def ready(self) -> tuple[bool, str]:
        """Return the attribute."""
        return self.is_ready, "" if self.is_ready else "restoring"

    async def sync(self, *, timeout_seconds: float) -> Mapping[str, object]:
        """Note the timeout."""
        self.entered.set()
        if self.hang:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        self.synced.append(timeout_seconds)
        return {"durable_txid": 7}

    async def snapshot(self) -> Mapping[str, object]:
        """Return a TXID."""
        return {"txid": 7}

    async def prune(self, *, limit: int) -> Mapping[str, object]:
        """Return the limit."""
        return {"limit": limit}


class Served:
    """A server on both kinds of address, and clients for them."""

    def __init__(self, daemon: Daemon, server: HttpServer, port: int, path: Path) -> None:
        self.daemon, self.server, self.port, self.path = daemon, server, port, path

    async def tcp(self, method: str, target: str) -> tuple[int, str, Mapping[str, str]]:
        """Send a request over TCP; return status, body and headers."""
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, f"http://127.0.0.1:{self.port}{target}") as answer,
        ):
            return answer.status, await answer.text(), answer.headers

    async def unix(self, method: str, target: str) -> tuple[int, Mapping[str, object]]:
        """Send a request over the socket; return status and JSON."""
        connector = aiohttp.UnixConnector(str(self.path))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(method, f"http://replicad{target}") as answer,
        ):
            found = await answer.json(content_type=None)
            assert isinstance(found, dict)
            return answer.status, found


@pytest.fixture
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A running server."""
    daemon, metrics = Daemon(), Metrics(version="1.2.3", wall_seconds=time.time)
    metrics.for_database("app.db").durable_txid = 7
    server = HttpServer(daemon, metrics)
    path = tmp_path_factory.mktemp("s") / "r.sock"
    port = await server.listen("127.0.0.1", 0)
    await server.control(path)
    await server.serve()
    yield Served(daemon, server, port, path)
    await server.close()


async def test_health_does_not_depend_on_anything(served: Served) -> None:
    """/healthz is 200 while the process runs, ready or not."""
    served.daemon.is_ready = False
    assert (await served.tcp("GET", "/healthz"))[:2] == (200, "ok\n")


async def test_readiness_says_why_not(served: Served) -> None:
    """/readyz is 200 or 503, with the reason."""
    assert (await served.tcp("GET", "/readyz"))[0] == 200
    served.daemon.is_ready = False
    status, body, _ = await served.tcp("GET", "/readyz")
    assert (status, json.loads(body)) == (503, {"ready": False, "reason": "restoring"})


async def test_status_is_json_without_secrets(served: Served) -> None:
    """/status gives the control's values, on both addresses, with credentials taken out.

    Seen to fail with the mapping dumped unscrubbed.
    """
    _, body, headers = await served.tcp("GET", "/status")
    assert json.loads(body)["databases"][0]["txid"] == 7
    assert headers["Content-Type"].startswith("application/json")
    assert headers["Cache-Control"] == "no-store"
    _, over_socket = await served.unix("GET", "/status")
    page = (await served.tcp("GET", "/"))[1]
    for text in (body, json.dumps(over_socket), page):
        assert "app.db" in text
        assert SECRET not in text


async def test_metrics_are_served(served: Served) -> None:
    """/metrics is Prometheus' text, or OpenMetrics for those who ask."""
    _, body, headers = await served.tcp("GET", "/metrics")
    assert 'replicad_durable_txid{database="app.db"} 7.0' in body
    assert headers["Content-Type"].startswith("text/plain; version=")


@pytest.mark.parametrize("target", ["/sync", "/snapshot"])
async def test_nothing_changes_state_over_tcp(served: Served, target: str) -> None:
    """What changes state does not exist on the TCP address, and works on the socket."""
    status, body, _ = await served.tcp("POST", target)
    assert status == 404
    assert json.loads(body)["exit_code"] == 1
    assert (await served.unix("POST", target))[0] == 200
    assert (await served.unix("GET", target))[0] == 405


async def test_sync_takes_a_timeout(served: Served) -> None:
    """The timeout of a sync reaches the control; a wrong one is a usage error."""
    assert await served.unix("POST", "/sync?timeout_seconds=2.5") == (200, {"durable_txid": 7})
    await served.unix("POST", "/sync")
    assert served.daemon.synced == [2.5, 60.0]
    for wrong in ("-1", "nan", "soon", "1e9"):
        status, error = await served.unix("POST", f"/sync?timeout_seconds={wrong}")
        assert (status, error["error"], error["exit_code"]) == (400, "UsageError", 64)


async def test_errors_carry_their_exit_code(served: Served) -> None:
    """An error of ours is JSON with its class, message and exit code."""
    served.daemon.error = NotReady(what="It", timeout_seconds=1, found="3 transactions pending", hint="Wait.")
    status, error = await served.unix("POST", "/sync")
    assert (status, error["error"], error["exit_code"]) == (503, "NotReady", 1)
    assert "3 transactions pending" in str(error["message"])
    served.daemon.error = StoreUnreachable(store="s3://b", operation="PUT", found="silence")
    assert (await served.unix("POST", "/sync"))[1]["exit_code"] == 13


async def test_an_unexpected_error_is_an_answer_too(served: Served) -> None:
    """A defect in an answer is a 500 without details, a line in the log with them, and the server goes on."""
    log = io.StringIO()
    configure(level="info", log_format="json", stream=log)
    served.daemon.error = ZeroDivisionError(SECRET)
    status, body, _ = await served.tcp("GET", "/status")
    assert (status, json.loads(body)["error"]) == (500, "ZeroDivisionError")
    assert SECRET not in body
    assert "request_failed" in log.getvalue()
    assert (await served.tcp("GET", "/healthz"))[0] == 200


async def test_the_socket_is_private(served: Served) -> None:
    """The socket's mode is 0600, and it is gone after the end."""
    assert stat.S_IMODE(served.path.stat().st_mode) == 0o600
    await served.server.close()
    assert not served.path.exists()


async def test_an_address_that_is_taken(served: Served) -> None:
    """A taken port is a usage error that names the setting and the way out."""
    other = HttpServer(served.daemon, Metrics(version="1", wall_seconds=time.time))
    with pytest.raises(UsageError, match=r"http_listen: expected an address that is free.*off"):
        await other.listen("127.0.0.1", served.port)
    await other.close()


async def test_who_connects_early_is_answered_later(tmp_path_factory: pytest.TempPathFactory) -> None:
    """An address can be connected to once it is taken, and the request waits until the server answers.

    So a probe that comes while replicad still loads is late, not refused.
    """
    server = HttpServer(Daemon(), Metrics(version="1", wall_seconds=time.time))
    path = tmp_path_factory.mktemp("s") / "r.sock"
    port = await server.listen("127.0.0.1", 0)
    await server.control(path)
    early = [await asyncio.open_connection("127.0.0.1", port), await asyncio.open_unix_connection(str(path))]
    for _, writer in early:
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    await server.serve()
    for reader, writer in early:
        assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 200 ")
        writer.close()
    await server.close()


async def test_closing_lets_go_of_what_was_never_served(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A server that is closed before it answers leaves no address taken and no socket file."""
    server = HttpServer(Daemon(), Metrics(version="1", wall_seconds=time.time))
    path = tmp_path_factory.mktemp("s") / "r.sock"
    port = await server.listen("127.0.0.1", 0)
    await server.control(path)
    await server.close()
    assert not path.exists()
    assert await server.listen("127.0.0.1", port) == port
    await server.close()


async def test_a_trap_clients_that_hold_the_daemon_at_its_end(served: Served) -> None:
    """Closing takes a moment only, with a client in the middle of a request, one that reads nothing, and one in a sync.

    Seen to fail with the library's own shutdown timeout of 60 s: the sync was still being answered at the time limit.
    """
    half = socket.create_connection(("127.0.0.1", served.port))
    half.sendall(b"GET /status HTTP/1.1\r\nHost: x\r\n")
    deaf = socket.create_connection(("127.0.0.1", served.port))
    deaf.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
    served.daemon.hang = True
    waiting = asyncio.create_task(served.unix("POST", "/sync"))
    await asyncio.wait_for(served.daemon.entered.wait(), 10)
    begun = time.monotonic()
    await served.server.close()
    assert time.monotonic() - begun < 5
    with pytest.raises(aiohttp.ClientError):
        await waiting
    half.close()
    deaf.close()
