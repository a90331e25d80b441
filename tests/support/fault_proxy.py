"""An HTTP proxy that makes things go wrong on the way to an S3 server, exactly where a rule says so.

Inside an event loop:

    async with FaultProxy("127.0.0.1", moto.port) as proxy:
        proxy.rules.append(Rule(method="PUT", path="/claims/", cut=Cut.ANSWER, times=1))   # a lost answer
        store = await open_store(moto.new_bucket_url(endpoint=proxy.endpoint), …)
        …
        assert [seen.method for seen in proxy.seen] == ["PUT", "GET"]

Beside a program under test, from a test without a loop:

    with running_in_thread(FaultProxy("127.0.0.1", moto.port)) as proxy:
        proxy.refuse = True            # the bucket is away: every connection is reset
        …

The first rule that matches a request decides; a request that no rule matches goes through. Rules may be added,
changed and removed at any time. `seen` has every request that arrived, in order, those not passed on as well: count
there to show that nothing was sent twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import socket
import struct
import threading
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

_LENGTH = re.compile(rb"(?im)^content-length:\s*(\d+)")
_CHUNKED = re.compile(rb"(?im)^transfer-encoding:\s*chunked")
_CLOSING = re.compile(rb"(?im)^connection:\s*close")
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")
_PIECE_BYTES = 64 << 10
_CODES = {429: "TooManyRequests", 500: "InternalError", 503: "SlowDown"}


class Cut(Enum):
    """Where a connection breaks."""

    BEFORE = "reset as soon as the head of the request is there; the server never sees it"
    REQUEST = "reset after half of the request's body; the server sees a request cut short"
    ANSWER = "the server does all it was asked, then reset instead of its answer: a lost answer"
    BODY = "half of the answer's body, then reset"
    HANG = "the server does all it was asked, but the answer never comes and the connection stays"
    DEAF = "nothing is read or said any more; the server never sees the request"


@dataclass(slots=True, kw_only=True)
class Answer:
    """An answer given by the proxy itself; the request is not passed on."""

    status: int
    code: str = ""  # S3's name for the error; a usual one for the status when left out
    retry_after: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None  # an S3 error document when left out
    announced_bytes: int | None = None  # a Content-Length that is not the truth; the connection is closed after

    def head(self, body: bytes) -> bytes:
        """Return the head of the answer as sent."""
        length = len(body) if self.announced_bytes is None else self.announced_bytes
        headers = {"Content-Type": "application/xml", "Content-Length": str(length), "Connection": "close"}
        headers |= self.headers | ({"Retry-After": self.retry_after} if self.retry_after else {})
        lines = [f"HTTP/1.1 {self.status} Injected", *(f"{name}: {text}" for name, text in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode()

    def document(self, method: str) -> bytes:
        """Return the body of the answer."""
        if method == "HEAD":
            return b""
        if self.body is not None:
            return self.body
        code = self.code or _CODES.get(self.status, "Injected")
        return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>".encode()


@dataclass(slots=True, kw_only=True)
class Rule:
    """Which requests are met, and what happens to them."""

    method: str = ""  # "" for all
    path: str = ""  # met when the path with its query contains this
    header: str = ""  # met when the head of the request contains this, whatever the case
    skip: int = 0  # so many matches go through first
    times: int | None = None  # so many are then met; None for all
    probability: float = 1.0
    latency_seconds: float = 0.0  # before it is passed on
    bytes_per_second: int = 0  # of bodies, each way; 0 for as fast as it goes
    answer: Answer | None = None
    cut: Cut | None = None
    matched: int = 0

    def meets(self, method: str, path: str, head: str, dice: random.Random) -> bool:
        """Return whether this rule decides about a request, and count it."""
        if self.method not in {"", method} or self.path not in path or self.header.lower() not in head.lower():
            return False
        if self.times is not None and self.matched >= self.skip + self.times:
            return False
        if dice.random() >= self.probability:
            return False
        self.matched += 1
        return self.matched > self.skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A request that arrived at the proxy."""

    method: str
    path: str  # with its query
    head: str
    rule: Rule | None


class FaultProxy:
    """A proxy on a free port of 127.0.0.1 in front of `host:port`.

    `seed` fixes what probabilities decide; with `tls` the clients speak https to the proxy.
    """

    def __init__(self, host: str, port: int, *, seed: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.rules: list[Rule] = []
        self.seen: list[Seen] = []
        self.refuse = False
        self.under_way = 0  # requests being worked on now
        self.most_under_way = 0
        self._upstream = (host, port)
        self._dice = random.Random(seed)
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.port = 0

    @property
    def endpoint(self) -> str:
        """The URL to give to a client."""
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}"

    def count(self, method: str = "", path: str = "") -> int:
        """Return how many requests of a method whose path contains a text have arrived."""
        return sum(1 for seen in self.seen if method in {"", seen.method} and path in seen.path)

    def hang_up(self) -> None:
        """End all connections that there are, soon; may be called from any thread."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._cancel_clients)

    def _cancel_clients(self) -> None:
        for client in self._clients:
            client.cancel()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=1 << 17, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self._cancel_clients()
        await asyncio.gather(*self._clients, return_exceptions=True)
        await self._server.wait_closed()
        for _turn in range(2):  # aborted transports are closed in the next turns of the loop
            await asyncio.sleep(0)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._clients.add(client)
        client.add_done_callback(self._clients.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversation = _Conversation(self._upstream, reader, writer)
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):  # TimeoutError of a slow peer as well
            try:
                while await self._exchange(conversation):
                    pass
            except _ResetError:
                conversation.reset()
            finally:
                await conversation.close()

    async def _exchange(self, conversation: _Conversation) -> bool:
        """Take one request to its end; return whether the connection goes on."""
        head = await conversation.client.readuntil(b"\r\n\r\n")
        if self.refuse:
            raise _ResetError
        method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
        text = head.decode("latin1")
        rule = next((rule for rule in self.rules if rule.meets(method, path, text, self._dice)), None)
        self.seen.append(Seen(method=method, path=path, head=text, rule=rule))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            return await conversation.exchange(method, head, rule or Rule())
        finally:
            self.under_way -= 1


class _ResetError(Exception):
    """The connection to the client is to be reset."""


class _Conversation:
    """A client's connection, and the one to the server that belongs to it."""

    def __init__(self, upstream: tuple[str, int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.client = reader
        self._upstream = upstream
        self._to_client = writer
        self._server: asyncio.StreamReader | None = None
        self._to_server: asyncio.StreamWriter | None = None

    async def exchange(self, method: str, head: bytes, rule: Rule) -> bool:
        """Do with one request what the rule says; return whether the connection goes on."""
        await asyncio.sleep(rule.latency_seconds)
        if rule.cut is Cut.BEFORE:
            raise _ResetError
        if rule.cut is Cut.DEAF:
            await asyncio.Event().wait()
        if rule.answer is not None:
            await _copy(self.client, None, head)
            return await self._say(rule.answer, method)
        server, to_server = await self._connect()
        to_server.write(head)
        await _copy(self.client, to_server, head, rule=rule, half=rule.cut is Cut.REQUEST)
        if rule.cut is Cut.REQUEST:
            to_server.transport.abort()
            raise _ResetError
        answer_head = await server.readuntil(b"\r\n\r\n")
        bodiless = method == "HEAD" or _status(answer_head) in {204, 304}
        if rule.cut in {Cut.ANSWER, Cut.HANG}:
            await _copy(server, None, b"" if bodiless else answer_head)
            if rule.cut is Cut.HANG:
                await asyncio.Event().wait()
            raise _ResetError
        self._to_client.write(answer_head)
        await _copy(server, self._to_client, b"" if bodiless else answer_head, rule=rule, half=rule.cut is Cut.BODY)
        await self._to_client.drain()
        if rule.cut is Cut.BODY:
            raise _ResetError
        return not (_CLOSING.search(answer_head) or answer_head.startswith(b"HTTP/1.0"))

    def reset(self) -> None:
        """Break the connection in a way that the client notices at once (RST instead of FIN)."""
        peer = self._to_client.get_extra_info("socket")
        if peer is not None:
            with contextlib.suppress(OSError):
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._to_client.transport.abort()

    async def close(self) -> None:
        """Close both connections."""
        writers = [writer for writer in (self._to_client, self._to_server) if writer is not None]
        for writer in writers:
            writer.close()
        try:
            async with asyncio.timeout(1):
                for writer in writers:
                    with contextlib.suppress(OSError):  # broken already
                        await writer.wait_closed()
        finally:  # what a peer that does not read has kept open
            for writer in writers:
                writer.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._server is None or self._to_server is None:
            self._server, self._to_server = await asyncio.open_connection(*self._upstream, limit=1 << 17)
        return self._server, self._to_server

    async def _say(self, answer: Answer, method: str) -> bool:
        body = answer.document(method)
        self._to_client.write(answer.head(body) + body)
        await self._to_client.drain()
        return False


def _status(head: bytes) -> int:
    found = _STATUS.match(head)
    return int(found[1]) if found else 0


async def _copy(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter | None,
    head: bytes,
    *,
    rule: Rule | None = None,
    half: bool = False,
) -> None:
    """Copy the body that follows a head, to nowhere without a writer, at the rule's speed; or half of it."""
    length = _LENGTH.search(head)
    if length is not None:
        left = int(length[1]) // (2 if half else 1)
        while left:
            piece = await reader.read(min(_PIECE_BYTES, left))
            if not piece:
                raise asyncio.IncompleteReadError(b"", left)
            left -= len(piece)
            await _pass_on(piece, writer, rule)
    elif _CHUNKED.search(head):
        size_bytes = -1
        while size_bytes:
            line = await reader.readuntil(b"\r\n")
            size_bytes = int(line.split(b";")[0], 16)
            await _pass_on(line + await reader.readexactly(size_bytes + 2), writer, rule)
    if writer is not None:
        await writer.drain()


async def _pass_on(piece: bytes, writer: asyncio.StreamWriter | None, rule: Rule | None) -> None:
    if writer is not None:
        writer.write(piece)
        await writer.drain()
    if rule is not None and rule.bytes_per_second:
        await asyncio.sleep(len(piece) / rule.bytes_per_second)


@contextlib.contextmanager
def running_in_thread(proxy: FaultProxy) -> Iterator[FaultProxy]:
    """Run a proxy in a thread with an event loop of its own; its rules may be changed from outside."""
    started, stop = threading.Event(), threading.Event()

    async def run() -> None:
        async with proxy:
            started.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="fault-proxy")
    thread.start()
    try:
        assert started.wait(10), "the proxy did not start"
        yield proxy
    finally:
        stop.set()
        thread.join(10)
