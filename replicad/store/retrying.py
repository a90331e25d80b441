"""The one retry policy. Nothing beneath it repeats a request: botocore's and aiohttp's own retries are off.

Only `StoreUnreachable` is tried again. `create` never is: its answer decides who owns an epoch, and a
repetition would take the refusal of its own success for somebody else's (see `replicad.store.create`).
A `put` whose answer was lost may be repeated, because the bytes are the same.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeVar

from replicad.errors import StoreUnreachable
from replicad.store.into import read_into

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from tenacity import RetryCallState

    from replicad.store.into import Rooms
    from replicad.store.options import StoreOptions
    from replicad.store.protocol import ObjectStore, StoredObject

T = TypeVar("T")

_BATCH_ROWS = 1_000  # of a listing between two looks at the policy: a page of S3


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often, and for how long, an operation that did not reach the store is tried."""

    attempts: int
    budget_seconds: float  # no attempt is begun after this
    first_wait_seconds: float
    max_wait_seconds: float

    @classmethod
    def of(cls, options: StoreOptions) -> Self:
        """Return the policy that the options ask for."""
        return cls(
            attempts=options.attempts,
            budget_seconds=options.retry_seconds,
            first_wait_seconds=options.first_wait_seconds,
            max_wait_seconds=options.max_wait_seconds,
        )

    async def run(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Return what `attempt` returns, calling it again while it raises `StoreUnreachable` and there is time.

        Nearly every request succeeds at once, and needs nobody to count: tenacity, which takes 0.2 ms of each call and
        5 ms to load, is told of a first failure afterwards.

        Raises:
            StoreUnreachable: of the last attempt.
        """
        began = time.monotonic()
        try:
            return await attempt()
        except StoreUnreachable as error:
            failures = [error]
        import tenacity  # noqa: PLC0415 - see above

        rest_seconds = max(0.0, self.budget_seconds - (time.monotonic() - began))
        tries = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(self.attempts) | tenacity.stop_before_delay(rest_seconds),
            wait=self._wait_seconds,
            retry=tenacity.retry_if_exception_type(StoreUnreachable),
            reraise=True,
        )

        async def once() -> T:
            if failures:
                raise failures.pop()
            return await attempt()

        return await tries(once)

    def _wait_seconds(self, state: RetryCallState) -> float:
        import tenacity  # noqa: PLC0415 - see `run`

        wait = tenacity.wait_random_exponential(multiplier=self.first_wait_seconds, max=self.max_wait_seconds)
        jittered = wait(state)
        error = state.outcome.exception() if state.outcome is not None else None
        asked = error.details.get("retry_after_seconds") if isinstance(error, StoreUnreachable) else None
        # A store that names a time knows more than a guess; when it does not fit into the budget, tenacity stops.
        return max(jittered, asked) if isinstance(asked, float) else jittered


class RetryingStore:
    """A store that is tried again, by one policy, when it could not be reached."""

    def __init__(self, store: ObjectStore, policy: RetryPolicy) -> None:
        self._store = store
        self._policy = policy

    @property
    def url(self) -> str:
        """What messages call this store."""
        return self._store.url

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """Return the bytes [start, stop) of an object, see `ObjectStore.get`."""
        return await self._policy.run(lambda: self._store.get(key, start=start, stop=stop))

    async def get_into(self, key: str, rooms: Rooms) -> bytes | memoryview:
        """Return a whole object, in a room if it can be, see `read_into`."""
        return await self._policy.run(lambda: read_into(self._store, key, rooms))

    async def put(self, key: str, body: bytes) -> None:
        """Store an object, see `ObjectStore.put`."""
        await self._policy.run(lambda: self._store.put(key, body))

    async def put_stream(self, key: str, parts: AsyncIterator[bytes]) -> int:
        """Store an object of unknown size, see `ObjectStore.put_stream`.

        Not tried again as a whole: the parts already taken from the iterator are gone. The S3 store tries each
        part again by this same policy; after an error from here the caller begins anew with a new iterator.
        """
        return await self._store.put_stream(key, parts)

    async def create(self, key: str, body: bytes) -> None:
        """Store an object if its key is free, in one attempt, see `ObjectStore.create`."""
        await self._store.create(key, body)

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[StoredObject]:
        """Iterate over objects in key order, see `ObjectStore.list`; goes on behind the last row after a fault."""
        rows = self._store.list(prefix, after=after)
        last = after

        async def following() -> list[StoredObject]:
            nonlocal rows, last
            batch: list[StoredObject] = []
            try:
                async for row in rows:
                    batch.append(row)
                    last = row.key
                    if len(batch) == _BATCH_ROWS:
                        break
            except StoreUnreachable:
                rows = self._store.list(prefix, after=last)  # an iterator that raised is spent
                if not batch:
                    raise
            return batch

        while batch := await self._policy.run(following):
            for row in batch:
                yield row

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, see `ObjectStore.delete`."""
        await self._policy.run(lambda: self._store.delete(keys))

    async def close(self) -> None:
        """Close the store beneath."""
        await self._store.close()
