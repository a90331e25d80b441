from __future__ import annotations

import http.server
import threading
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.support.fault_proxy import Answer, Cut, FaultProxy, Rule, running_in_thread

if TYPE_CHECKING:
    from collections.abc import Iterator

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class _Echo(http.server.BaseHTTPRequestHandler):
    """Answers with the body of the request, or 1 000 bytes."""

    protocol_version = "HTTP/1.1"
    bodies: list[bytes]

    def do_PUT(self) -> None:
        """Take a body."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.bodies.append(body)
        self._say(body)

    def do_GET(self) -> None:
        """Give a body."""
        self._say(bytes(1_000))

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _say(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def bodies() -> list[bytes]:
    """The bodies that reached the server."""
    return []


@pytest.fixture
def proxy(bodies: list[bytes]) -> Iterator[FaultProxy]:
    """A proxy in a thread before an echoing server."""
    handler = type("Echo", (_Echo,), {"bodies": bodies})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with running_in_thread(FaultProxy("127.0.0.1", server.server_port)) as running:
                yield running
        finally:
            server.shutdown()
            thread.join()


def _ask(proxy: FaultProxy, method: str = "GET", path: str = "/a", body: bytes | None = None) -> tuple[int, bytes]:
    request = urllib.request.Request(proxy.endpoint + path, data=body, method=method)  # noqa: S310 - to this machine
    try:
        with _DIRECT.open(request, timeout=5) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.code, answer.read()


def test_without_rules(proxy: FaultProxy, bodies: list[bytes]) -> None:
    """Without rules everything goes through, and is seen."""
    assert _ask(proxy, "PUT", "/a?x=1", b"body") == (200, b"body")
    assert _ask(proxy) == (200, bytes(1_000))
    assert bodies == [b"body"]
    assert [(seen.method, seen.path) for seen in proxy.seen] == [("PUT", "/a?x=1"), ("GET", "/a")]


def test_matching(proxy: FaultProxy) -> None:
    """A rule meets by method, path and header, lets the first ones pass, and is used up."""
    proxy.rules.append(Rule(method="PUT", answer=Answer(status=500)))
    proxy.rules.append(Rule(path="/b", answer=Answer(status=501)))
    proxy.rules.append(Rule(header="ACCEPT-encoding: identity", skip=1, times=2, answer=Answer(status=503)))
    assert _ask(proxy, "PUT", "/a", b"")[0] == 500
    assert _ask(proxy, path="/b")[0] == 501
    assert [_ask(proxy)[0] for _ in range(4)] == [200, 503, 503, 200]


def test_answers(proxy: FaultProxy, bodies: list[bytes]) -> None:
    """An injected answer is S3's error document, or what it is told to be, and the server sees nothing."""
    proxy.rules.append(Rule(path="/a", answer=Answer(status=503, retry_after="7")))
    proxy.rules.append(Rule(path="/b", answer=Answer(status=200, body=b"mine")))
    assert b"<Code>SlowDown</Code>" in _ask(proxy, "PUT", "/a", b"x")[1]
    assert _ask(proxy, path="/b") == (200, b"mine")
    assert bodies == []


@pytest.mark.parametrize(
    ("cut", "reached"),
    [(Cut.BEFORE, []), (Cut.REQUEST, []), (Cut.ANSWER, [bytes(200_000)]), (Cut.BODY, [bytes(200_000)])],
)
def test_cuts(proxy: FaultProxy, bodies: list[bytes], cut: Cut, reached: list[bytes]) -> None:
    """A cut connection fails for the client; the server has all of the request or nothing, as the cut says."""
    proxy.rules.append(Rule(cut=cut))
    with pytest.raises((OSError, http.client.HTTPException)):
        _ask(proxy, "PUT", "/a", bytes(200_000))
    whole = [body for body in bodies if len(body) == 200_000]
    assert whole == reached


@pytest.mark.parametrize("cut", [Cut.HANG, Cut.DEAF])
def test_silence(proxy: FaultProxy, cut: Cut) -> None:
    """A hanging request gets no answer, and the proxy can be stopped all the same."""
    proxy.rules.append(Rule(cut=cut))
    request = urllib.request.Request(f"{proxy.endpoint}/a")  # noqa: S310 - to this machine
    with pytest.raises(TimeoutError):
        _DIRECT.open(request, timeout=0.1)


def test_outage(proxy: FaultProxy) -> None:
    """While the proxy refuses, connections are reset; afterwards they work."""
    proxy.refuse = True
    with pytest.raises(OSError, match=r"reset|closed|refused|aborted"):
        _ask(proxy)
    proxy.refuse = False
    assert _ask(proxy)[0] == 200


def test_chance(proxy: FaultProxy) -> None:
    """A rule with a probability meets some requests; the seed decides which."""
    proxy.rules.append(Rule(probability=0.5, answer=Answer(status=500)))
    statuses = [_ask(proxy)[0] for _ in range(30)]
    assert set(statuses) == {200, 500}
