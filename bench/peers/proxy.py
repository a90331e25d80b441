"""A wire to an S3 server, as a process of its own: adds latency, limits bandwidth, writes down every request.

    python -m bench.peers.proxy PORT_FILE LOG UPSTREAM_PORT DELAY_MS BYTES_PER_SECOND(0: no limit)

DELAY_MS is a round trip: half of it is spent in each direction, and a whole one when a connection is opened. The limit
holds for each connection and direction, as an object store's does. The log has two JSON lines for each request, at its
first byte and behind the last byte of its answer; times are CLOCK_MONOTONIC, which all processes share. Understands
HTTP/1.1 with Content-Length, chunked bodies and 100-continue: as much as S3 clients and servers say.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections import deque
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_LENGTH = re.compile(rb"(?im)^content-length:\s*(\d+)")
_CHUNKED = re.compile(rb"(?im)^transfer-encoding:\s*chunked")
_QUEUE_BYTES = 4 << 20
_HEAD_BYTES = 64 << 10


class Messages:
    """Finds where HTTP messages begin and end in a stream; `bodiless` tells of an answer that has no body."""

    def __init__(self, on_head: Callable[[bytes], bool], on_end: Callable[[], None]) -> None:
        self.wire_bytes = 0  # of the message that is going on
        self._on_head, self._on_end = on_head, on_end
        self._held = b""
        self._left: int | None = None  # of a body with a length; None: reading a head
        self._chunked = False

    def feed(self, received: bytes) -> None:
        """Take what came."""
        view = received
        while view:
            if self._left is not None:
                taken = min(self._left, len(view))
                self.wire_bytes += taken
                self._left -= taken
                view = view[taken:] if taken < len(view) else b""
                if not self._left:
                    self._body_ended()
            elif self._chunked:
                view = self._chunk(view)
            else:
                view = self._head(view)

    def _head(self, view: bytes) -> bytes:
        held = self._held + view
        end = held.find(b"\r\n\r\n")
        if end < 0:
            if len(held) > _HEAD_BYTES:
                raise ValueError("a head of an HTTP message that does not end")
            self._held = held
            return b""
        head, self._held = held[: end + 4], b""
        self.wire_bytes += len(head)
        bodiless = self._on_head(head)
        if not bodiless and _CHUNKED.search(head):
            self._chunked = True
        else:
            length = _LENGTH.search(head)
            self._left = 0 if bodiless or length is None else int(length[1])
            if not self._left:
                self._body_ended()
        return held[end + 4 :]

    def _chunk(self, view: bytes) -> bytes:
        held = self._held + view
        line = held.find(b"\r\n")
        if line < 0:
            self._held = held
            return b""
        size = int(held[:line].split(b";")[0], 16)
        if size == 0:  # trailers, then an empty line
            end = held.find(b"\r\n\r\n", line)
            if end < 0:
                self._held = held
                return b""
            self.wire_bytes += end + 4
            self._held, self._chunked = b"", False
            self._on_end()
            return held[end + 4 :]
        self._held = b""
        self.wire_bytes += line + 2
        self._left = size + 2
        return held[line + 2 :]

    def _body_ended(self) -> None:
        self._left = None
        if not self._chunked:
            self._on_end()


class Log:
    """The file of requests."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)
        self._count = 0

    def began(self, verb: str, path: str) -> int:
        """Write that a request began."""
        self._count += 1
        self._write({"id": self._count, "verb": verb, "path": path, "began": time.monotonic()})
        return self._count

    def ended(self, number: int, **found: int) -> None:
        """Write that it was answered."""
        self._write({"id": number, "ended": time.monotonic(), **found})

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")


class Direction:
    """Hands bytes on, in order, as late as the wire says."""

    def __init__(self, delay_seconds: float, rate: float) -> None:
        self.source: asyncio.Transport | None = None
        self.sink: asyncio.Transport | None = None
        self._delay, self._rate = delay_seconds, rate
        self._free_at = 0.0
        self._queue: deque[tuple[float, bytes, Callable[[], None] | None]] = deque()
        self._queued_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False

    def send(self, piece: bytes, then: Callable[[], None] | None = None) -> None:
        """Hand on a piece; `then` is called when it has left."""
        if not self._delay and not self._rate and not self._queue and self.sink is not None:
            self.sink.write(piece)
            if then is not None:
                then()
            return
        now = time.monotonic()
        if self._rate:
            self._free_at = max(now, self._free_at) + len(piece) / self._rate
        self._queue.append((max(now, self._free_at) + self._delay, piece, then))
        self._queued_bytes += len(piece)
        if self._queued_bytes > _QUEUE_BYTES and self.source is not None:
            self.source.pause_reading()
        self._flush()

    def close(self) -> None:
        """Close the far end once all has left."""
        self._closing = True
        self._flush()

    def _flush(self) -> None:
        if self._timer is not None:
            return
        while self._queue and self.sink is not None:
            due = self._queue[0][0] - time.monotonic()
            if due > 0.0002:
                self._timer = asyncio.get_running_loop().call_later(due, self._due)
                return
            _, piece, then = self._queue.popleft()
            before, self._queued_bytes = self._queued_bytes, self._queued_bytes - len(piece)
            if before > _QUEUE_BYTES >= self._queued_bytes and self.source is not None:
                self.source.resume_reading()
            self.sink.write(piece)
            if then is not None:
                then()
        if self._closing and not self._queue and self.sink is not None:
            self.sink.close()

    def _due(self) -> None:
        self._timer = None
        self._flush()


class Connection:
    """One connection of a client, and its own to the server."""

    def __init__(self, log: Log, delay_seconds: float, rate: float) -> None:
        self._log = log
        self.up, self.down = Direction(delay_seconds / 2, rate), Direction(delay_seconds / 2, rate)
        self._requests = Messages(self._on_request, self._request_ended)
        self._answers = Messages(self._on_answer, self._answer_ended)
        self._open: deque[list[Any]] = deque()  # [id, verb, bytes sent]
        self._status = 0
        self._done: list[Callable[[], None]] = []

    def from_client(self, piece: bytes) -> None:
        """Take what the client sent."""
        self._requests.feed(piece)
        self.up.send(piece)

    def from_server(self, piece: bytes) -> None:
        """Take what the server sent; a request has ended when the last byte of its answer has left here."""
        self._answers.feed(piece)
        done, self._done = self._done, []
        self.down.send(piece, partial(_call, done) if done else None)

    def _on_request(self, head: bytes) -> bool:
        verb, path, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
        self._open.append([self._log.began(verb, path), verb, 0])
        return False

    def _request_ended(self) -> None:
        self._open[-1][2] = self._requests.wire_bytes
        self._requests.wire_bytes = 0

    def _on_answer(self, head: bytes) -> bool:
        self._status = int(head.split(b" ", 2)[1])
        return self._status < 200 or self._status in (204, 304) or (bool(self._open) and self._open[0][1] == "HEAD")

    def _answer_ended(self) -> None:
        if self._status < 200 or not self._open:
            return
        number, _, sent = self._open.popleft()
        found = {"status": self._status, "sent": sent, "received": self._answers.wire_bytes}
        self._answers.wire_bytes = 0
        self._done.append(lambda: self._log.ended(number, **found))


class End(asyncio.Protocol):
    """One end of a connection."""

    def __init__(self, receive: Callable[[bytes], None], out: Direction, into: Direction) -> None:
        self._receive, self._out, self._into = receive, out, into

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Learn where to write to."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - TCP
        self._out.source = self._into.sink = transport

    def data_received(self, data: bytes) -> None:
        """Pass on."""
        self._receive(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - either way it is over
        """Close the other end."""
        self._out.close()

    def pause_writing(self) -> None:
        """Stop reading what would be written here."""
        if self._into.source is not None:
            self._into.source.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        if self._into.source is not None:
            self._into.source.resume_reading()


def _call(done: list[Callable[[], None]]) -> None:
    for each in done:
        each()


async def serve(port_file: Path, log: Log, upstream: int, delay_seconds: float, rate: float) -> None:
    """Serve until killed."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def connect(connection: Connection) -> None:
        await asyncio.sleep(delay_seconds)  # the handshake of TCP
        await loop.create_connection(
            lambda: End(connection.from_server, connection.down, connection.up), "127.0.0.1", upstream
        )
        connection.up._flush()  # noqa: SLF001 - what came before there was a way on

    def accept() -> End:
        connection = Connection(log, delay_seconds, rate)
        task = loop.create_task(connect(connection))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return End(connection.from_client, connection.up, connection.down)

    server = await loop.create_server(accept, "127.0.0.1", 0, backlog=512)
    ready = port_file.with_suffix(".new")
    ready.write_text(str(server.sockets[0].getsockname()[1]))
    ready.rename(port_file)
    await server.serve_forever()


def main() -> None:
    """Serve."""
    port_file, log, upstream, delay_ms, rate = sys.argv[1:]
    asyncio.run(serve(Path(port_file), Log(Path(log)), int(upstream), float(delay_ms) / 1000, float(rate)))


if __name__ == "__main__":
    main()
