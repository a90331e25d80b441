"""Reading from S3 without the SDK: signed GETs over plain connections, each waited for by a thread.

A command that only reads makes one listing or two and then up to thousands of GETs. The SDK takes a quarter of a
second and 25 MB to load, and 2 ms of the interpreter for each request, in the one thread that also takes in every
byte. Here a body is received straight into the bytes that are returned, outside of Python's lock.

Only plain success is understood here. Whatever else comes (another status, a body that is cut off, no connection)
goes to the full client, which asks again, and knows what the answer means; and from then on so does everything else.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import re
import socket
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from replicad import __version__
from replicad.host.clock import SystemClock
from replicad.host.threads import Threads
from replicad.store.into import read_into
from replicad.store.metered import measured
from replicad.store.s3_rows import parse_page
from replicad.store.s3_signature import query_string, signed_headers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence

    from replicad.store.into import Rooms
    from replicad.store.metered import RequestObserver
    from replicad.store.options import StoreOptions
    from replicad.store.protocol import ObjectStore, StoredObject
    from replicad.store.s3_access import Access

T = TypeVar("T")

_OK, _PARTIAL = 200, 206
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class _Doubt(Exception):
    """An answer that is no plain success."""


class _Connection:
    """One connection, used by one thread at a time."""

    def __init__(self, access: Access, options: StoreOptions) -> None:
        kind = http.client.HTTPSConnection if access.secure else http.client.HTTPConnection
        self._access = access
        self._http = kind(access.host, timeout=options.connect_timeout_seconds)
        self._silent_seconds = options.read_timeout_seconds

    def get(
        self,
        path: str,
        query: str,
        extra: Mapping[str, str],
        rooms: Rooms | None,
        expect: Callable[[int], object],
    ) -> tuple[http.client.HTTPResponse, bytes | memoryview]:
        """Make one request; return the answer and its whole body, in a room when there are any.

        Raises:
            _Doubt: there is none, or it is not what was announced.
        """
        access = self._access
        now = datetime.fromtimestamp(SystemClock().now_ms() / 1000, UTC)
        headers = signed_headers(
            access.credentials, region=access.region, host=access.host, path=path, query=query, now=now
        )
        try:
            if self._http.sock is None:
                self._connect()
            url = f"{path}?{query}" if query else path
            self._http.putrequest("GET", url, skip_host=True, skip_accept_encoding=True)
            for name, text in {**headers, "user-agent": f"replicad/{__version__}", **extra}.items():
                self._http.putheader(name, text)
            self._http.endheaders()
            with self._http.getresponse() as answer:
                length = answer.length
                if length is not None:
                    expect(length)
                # what is no object needs no room
                body = _whole_body(answer, length, rooms if answer.status == _OK else None)
        except (OSError, http.client.HTTPException) as error:
            raise _Doubt(repr(error)) from error
        return answer, body

    def _connect(self) -> None:
        self._http.connect()
        opened: socket.socket = self._http.sock
        opened.settimeout(self._silent_seconds)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def abort(self) -> None:
        """Make whoever waits for it stop waiting."""
        with contextlib.suppress(OSError):
            if self._http.sock is not None:
                self._http.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it."""
        self._http.close()


def _whole_body(answer: http.client.HTTPResponse, length: int | None, rooms: Rooms | None) -> bytes | memoryview:
    if length is None:
        return answer.read()
    if rooms is None:
        whole = answer.read(length)
        _check_length(len(whole), length)
        return whole
    body = rooms.take(length)
    with rooms.filling(body):
        _check_length(answer.readinto(body), length)
    return body


class DirectReads:
    """A bucket that is read without the SDK as long as all goes well; everything else is the full client's.

    Args:
        access: where it is.
        options: limits.
        open_full: opens the full client, when it is needed.
        observer: is told of requests; None: nobody is.
        url: for messages.
    """

    def __init__(
        self,
        access: Access,
        options: StoreOptions,
        open_full: Callable[[], Awaitable[ObjectStore]],
        *,
        observer: RequestObserver | None,
        url: str,
    ) -> None:
        self.url = url
        self._access = access
        self._options = options
        self._open_full = open_full
        self._observer = observer
        self._threads = Threads("s3", options.concurrency)
        self._idle: list[_Connection] = []
        self._full: ObjectStore | None = None
        self._opening = asyncio.Lock()
        self._doubted = False

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """Return the bytes [start, stop) of an object, see `ObjectStore.get`."""
        if stop is not None and stop <= start:
            return b""
        extra = {} if start == 0 and stop is None else {"range": f"bytes={start}-{'' if stop is None else stop - 1}"}
        try:
            with self._certain():
                answer, body = await self._ask("get", self._path(key), "", extra)
                _check_status(answer, _PARTIAL if extra else _OK)
                if extra:
                    _check_range(answer.getheader("content-range", ""), body, start, stop)
                return bytes(body)
        except _Doubt:
            return await (await self._whole()).get(key, start=start, stop=stop)

    async def get_into(self, key: str, rooms: Rooms) -> bytes | memoryview:
        """Return a whole object, in a room if it can be, see `read_into`."""
        try:
            with self._certain():
                answer, body = await self._ask("get", self._path(key), "", {}, rooms)
                _check_status(answer, _OK)
                return body
        except _Doubt:
            return await read_into(await self._whole(), key, rooms)

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[StoredObject]:
        """Iterate over objects in key order, see `ObjectStore.list`; one request for each 1 000."""
        last, token = after, ""
        while True:
            going_on = {"continuation-token": token} if token else {"start-after": after} if after else {}
            query = query_string({"list-type": "2", "prefix": prefix, **going_on})
            try:
                with self._certain():
                    answer, body = await self._ask("list", self._access.root, query, {})
                    _check_status(answer, _OK)
                    rows, following = _page(bytes(body), prefix, last, token, self.url)
            except _Doubt:
                break
            for row in rows:
                yield row
            if not following:
                return
            last, token = rows[-1].key if rows else last, following
        async for row in (await self._whole()).list(prefix, after=last):
            yield row

    async def put(self, key: str, body: bytes) -> None:
        """Store an object, see `ObjectStore.put`."""
        await (await self._whole()).put(key, body)

    async def put_stream(self, key: str, parts: AsyncIterator[bytes]) -> int:
        """Store an object of unknown size, see `ObjectStore.put_stream`."""
        return await (await self._whole()).put_stream(key, parts)

    async def create(self, key: str, body: bytes) -> None:
        """Store an object if its key is free, see `ObjectStore.create`."""
        await (await self._whole()).create(key, body)

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, see `ObjectStore.delete`."""
        await (await self._whole()).delete(keys)

    async def close(self) -> None:
        """Close all connections."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()
        await self._threads.close()
        if self._full is not None:
            await self._full.close()

    @contextlib.contextmanager
    def _certain(self) -> Iterator[None]:
        """Remember a doubt that comes up inside; raise it at once when there was one already."""
        if self._doubted:
            raise _Doubt
        try:
            yield
        except _Doubt:
            self._doubted = True
            raise

    async def _whole(self) -> ObjectStore:
        async with self._opening:
            if self._full is None:
                self._full = await self._open_full()
        return self._full

    def _path(self, key: str) -> str:
        return self._access.root + quote(key, safe="/-_.~")

    async def _ask(
        self, verb: str, path: str, query: str, extra: Mapping[str, str], rooms: Rooms | None = None
    ) -> tuple[http.client.HTTPResponse, bytes | memoryview]:
        """Make one request within the time that it may take; a cancelled one leaves no thread behind."""
        limits, loop = self._options, asyncio.get_running_loop()
        silent_seconds = limits.connect_timeout_seconds + limits.read_timeout_seconds
        connection = self._idle.pop() if self._idle else _Connection(self._access, limits)
        with measured(self._observer, verb) as moved:
            try:
                async with asyncio.timeout(silent_seconds) as deadline:

                    def expect(size_bytes: int) -> None:
                        seconds = silent_seconds + size_bytes / limits.min_bytes_per_second
                        loop.call_soon_threadsafe(_put_off, deadline, loop.time() + seconds)

                    asking = partial(connection.get, path, query, extra, rooms, expect)
                    answer, body = await self._wait(connection, asking)
            except TimeoutError as error:
                raise _Doubt("too slow") from error
            moved.received_bytes = len(body) if verb == "get" else 0
        if answer.will_close:
            connection.close()
        else:
            self._idle.append(connection)
        return answer, body

    async def _wait(self, connection: _Connection, ask: Callable[[], T]) -> T:
        asking = asyncio.ensure_future(self._threads.run(ask))
        try:
            return await asyncio.shield(asking)
        except BaseException:
            connection.abort()
            await asyncio.wait([asking])
            connection.close()
            if not asking.cancelled():
                asking.exception()  # seen: the connection is gone either way
            raise


def _put_off(deadline: asyncio.Timeout, until: float) -> None:
    with contextlib.suppress(RuntimeError):  # it has passed already
        deadline.reschedule(until)


def _check_length(found: int, announced: int) -> None:
    if found != announced:
        raise _Doubt(f"{found} of {announced} bytes")


def _check_status(answer: http.client.HTTPResponse, expected: int) -> None:
    if answer.status != expected:
        raise _Doubt(answer.status)


def _check_range(said: str, body: bytes | memoryview, start: int, stop: int | None) -> None:
    found = _CONTENT_RANGE.fullmatch(said)
    if found is None:
        raise _Doubt(said)
    first, last, total = map(int, found.groups())
    end = total if stop is None else min(stop, total)
    if (first, last + 1) != (start, end) or len(body) != end - start:
        raise _Doubt(said)


def _page(body: bytes, prefix: str, after: str, token: str, url: str) -> tuple[list[StoredObject], str]:
    try:
        rows, following = parse_page(body, prefix=prefix, after=after, store=url)
    except ValueError as error:
        raise _Doubt(repr(error)) from error
    if token and token == following:
        raise _Doubt(token)
    return rows, following
