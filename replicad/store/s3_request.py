"""One request to S3: its turn, its time limit, its entry in the metrics, and its error in this package's words."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from replicad.store.metered import measured
from replicad.store.s3_errors import CLIENT_ERRORS, Attempt, translate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from replicad.store.metered import Measured, RequestObserver
    from replicad.store.options import StoreOptions
    from replicad.store.s3_client import S3Connection


class Underway:
    """A request being made."""

    __slots__ = ("_deadline", "_limits", "_moved")

    def __init__(self, limits: TimeLimits, deadline: asyncio.Timeout, moved: Measured) -> None:
        self._limits = limits
        self._deadline = deadline
        self._moved = moved

    def expect(self, size_bytes: int) -> None:
        """Give the rest of the answer the time that so many bytes may take."""
        self._deadline.reschedule(asyncio.get_running_loop().time() + self._limits.seconds(size_bytes))

    def received(self, size_bytes: int) -> None:
        """Take note that a body of this size came in."""
        self._moved.received_bytes = size_bytes


class TimeLimits:
    """How long a request may take before it counts as hung.

    aiohttp's own limits watch the wait for a connection and the gaps between received bytes. They do not see a
    peer that takes no bytes, nor one that sends one byte now and then.
    """

    __slots__ = ("_bytes_per_second", "_silent_seconds")

    def __init__(self, options: StoreOptions) -> None:
        self._silent_seconds = options.connect_timeout_seconds + options.read_timeout_seconds
        self._bytes_per_second = options.min_bytes_per_second

    def seconds(self, size_bytes: int) -> float:
        """Return the limit of a request that moves so many bytes."""
        return self._silent_seconds + size_bytes / self._bytes_per_second


class Requests:
    """The way every request to one bucket goes; at most `options.concurrency` are under way at once."""

    def __init__(self, connection: S3Connection, options: StoreOptions, observer: RequestObserver | None) -> None:
        self._connection = connection
        self._limits = TimeLimits(options)
        self._observer = observer
        self._free = asyncio.Semaphore(options.concurrency)

    @contextlib.asynccontextmanager
    async def one(self, verb: str, key: str, *, sent_bytes: int = 0) -> AsyncIterator[Underway]:
        """Make the request of the body of this context; `key` may be a prefix or "" where none is meant.

        Raises:
            StoreUnreachable: no answer, or one that asks to come again.
            StoreRefused: an answer that another attempt will not change.
            ObjectMissing: there is no such key.
            ObjectExists: verb create, and the key is taken.
            CreateUndecided: verb create, and nobody knows.
            ConditionalWritesUnsupported: verb create, and the store has none.
        """
        async with self._free:
            with measured(self._observer, verb, sent_bytes=sent_bytes) as moved:
                try:
                    async with asyncio.timeout(self._limits.seconds(sent_bytes)) as deadline:
                        yield Underway(self._limits, deadline, moved)
                except CLIENT_ERRORS as error:
                    self._raise(error, verb, key)

    def _raise(self, error: Exception, verb: str, key: str) -> None:
        secrets = self._connection.secrets()
        attempt = Attempt(
            store=self._connection.url,
            operation=f"{verb} {key}".strip(),
            key=key if verb not in {"list", "delete"} else "",
            creating=verb == "create",
            secrets=secrets,
        )
        told = translate(error, attempt)
        # A server may repeat what was sent to it; then its own error must not be shown as the cause either.
        raise told from (None if any(secret in str(error) for secret in secrets) else error)
