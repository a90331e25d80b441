"""GETs of one restore: bounded, counted, and looked at twice before an object is called damaged."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from replicad.errors import Damaged
from replicad.store.database import chunk_names
from replicad.store.into import Held, read_into

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from collections.abc import Set as AbstractSet

    from replicad.host.threads import Threads
    from replicad.snapshot import ChunkNames
    from replicad.store.into import Rooms
    from replicad.store.protocol import ObjectStore

T = TypeVar("T")
Body = TypeVar("Body", bytes, "bytes | memoryview")


class Fetch:
    """Reads objects of one store.

    Args:
        store: the database's own part of the store.
        threads: where bytes are unpacked, hashed and written.
        concurrency: how many requests are under way at once.
    """

    def __init__(self, store: ObjectStore, threads: Threads, *, concurrency: int) -> None:
        self.threads = threads
        self.concurrency = concurrency
        self.requests = 0
        self.fetched_bytes = 0
        self._store = store
        self._turns = asyncio.Semaphore(concurrency)
        self._foreseen: dict[str, asyncio.Task[bytes]] = {}

    async def chunk_names(self) -> ChunkNames:
        """Return how the chunks of this store are named.

        Raises:
            ReplicadError: the store cannot be read, or not with these keys.
        """
        return await chunk_names(self._store)

    async def read(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """Return the bytes [start, stop) of an object.

        Raises:
            ObjectMissing: it is not there (any more).
            StoreUnreachable: the store does not answer.
            StoreRefused: the store does not let us.
        """
        whole = start == 0 and stop is None
        if whole and (foreseen := self._foreseen.pop(key, None)) is not None:
            return await foreseen
        return await self._ask(partial(self._store.get, key, start=start, stop=stop))

    def foresee(self, keys: Iterable[str]) -> None:
        """Ask for whole objects that are likely to be read soon, each once; their bytes are kept until they are.

        Whoever does calls `forget` in the end.
        """
        for key in keys:
            if key not in self._foreseen:
                self._foreseen[key] = asyncio.create_task(self._ask(partial(self._store.get, key)))

    async def forget(self, *, but: AbstractSet[str] = frozenset()) -> None:
        """Let go of what was foreseen and not read, except for these."""
        tasks = [self._foreseen.pop(key) for key in self._foreseen.keys() - but]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.exception()  # seen: nobody needs it any more

    async def proven_in(self, rooms: Rooms, key: str, use: Callable[[Held], T]) -> T:
        """Return what `proven` does of a whole object, which may be in one of the rooms until `use` lets go of it.

        Raises:
            Damaged: it was damaged both times.
            Exception: as `read`, and whatever else `use` raises.
        """

        async def once() -> T:
            held = Held(await self._ask(partial(read_into, self._store, key, rooms)), rooms)
            try:
                return await self.threads.run(use, held)
            finally:
                held.let_go()

        return await _twice(once)

    async def proven(self, key: str, use: Callable[[bytes], T], *, start: int = 0, stop: int | None = None) -> T:
        """Return what `use`, called in a thread, makes of the bytes [start, stop) of an object.

        When `use` finds them damaged they are fetched once more: what broke on the way (a proxy that answers 200
        with half a body) is sound the second time, what is broken in the store is not.

        Raises:
            Damaged: they were damaged both times.
            Exception: as `read`, and whatever else `use` raises.
        """

        async def once() -> T:
            return await self.threads.run(use, await self.read(key, start=start, stop=stop))

        return await _twice(once)

    async def _ask(self, ask: Callable[[], Awaitable[Body]]) -> Body:
        """Make a request in its turn, and count it."""
        async with self._turns:
            self.requests += 1
            body = await ask()
        self.fetched_bytes += len(body)
        return body


async def _twice(attempt: Callable[[], Awaitable[T]]) -> T:
    try:
        return await attempt()
    except Damaged:
        return await attempt()
