"""An object store with faults, repeatable by seed: for tests of what is built on a store.

    store = FaultyStore(MemoryStore(), Faults(lost_answer=0.2, unavailable=0.1), seed=7)
    store.faults = Faults()        # from here on nothing goes wrong: "after the faults end"
    store.reachable = False        # the bucket is away
    store.calls                    # every call that was made, with what became of it

The faults are those of the network and of the store, as an `ObjectStore` shows them:

- a request lost on its way, or its answer: StoreUnreachable, or CreateUndecided for a create;
- 429 and 503: StoreUnreachable, nothing was done;
- 409 on a create: CreateUndecided, nothing was done;
- a write that was given up and lands later (`late`): between two later calls, or at `settle()`;
- a body cut short or with a flipped bit, against the protocol and without an error: what only a hash finds;
- a create that ignores its condition, as rclone and others do.

Latency is slept on the event loop, so a loop with virtual time runs through it at once. What happens depends on the
seed and on the order of calls only.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from replicad.errors import CreateUndecided, StoreUnreachable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from replicad.store.protocol import ObjectStore, StoredObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How likely each fault is, per call, from 0 to 1; at most one of them happens to a call."""

    lost_request: float = 0.0
    lost_answer: float = 0.0  # all was done, nobody was told
    late: float = 0.0  # of writes: given up, and done after the next few calls
    unavailable: float = 0.0  # 429, 503
    conflict: float = 0.0  # of creates: 409
    short_body: float = 0.0  # of gets: half the bytes, no error
    flipped_bit: float = 0.0  # of gets: one bit, no error
    ignores_condition: bool = False  # a create replaces what is there
    latency_seconds: tuple[float, float] = (0.0, 0.0)  # least and most, before and again after each call


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call that was made."""

    verb: str
    key: str
    fault: str  # "" when nothing went wrong


class FaultyStore:
    """A store whose calls go wrong by chance; `store` has the truth."""

    def __init__(self, store: ObjectStore, faults: Faults | None = None, *, seed: int = 0) -> None:
        self.store = store
        self.faults = faults or Faults()
        self.reachable = True
        self.calls: list[Call] = []
        self._dice = random.Random(seed)
        self._late: list[Callable[[], Awaitable[None]]] = []

    @property
    def url(self) -> str:
        """The URL of the store beneath."""
        return self.store.url

    def count(self, verb: str = "", key: str = "") -> int:
        """Return how many calls of a verb with a text in their key were made."""
        return sum(1 for call in self.calls if verb in {"", call.verb} and key in call.key)

    async def settle(self) -> None:
        """Let every write that is still under way land."""
        while self._late:
            await self._late.pop(0)()

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """Return the bytes [start, stop) of an object, or what is left of them."""
        fault = await self._begin("get", key, ("short_body", "flipped_bit"))
        body = await self.store.get(key, start=start, stop=stop)
        await self._end("get", key, fault)
        if fault == "short_body":
            return body[: len(body) // 2]
        return self._flip(body) if fault == "flipped_bit" else body

    async def put(self, key: str, body: bytes) -> None:
        """Store an object, perhaps."""
        fault = await self._begin("put", key, ("late",))
        if fault == "late":
            self._postpone("put", key, lambda: self.store.put(key, body))
        await self.store.put(key, body)
        await self._end("put", key, fault)

    async def put_stream(self, key: str, parts: AsyncIterator[bytes]) -> int:
        """Store an object of unknown size, perhaps."""
        fault = await self._begin("put_stream", key, ())
        size_bytes = await self.store.put_stream(key, parts)
        await self._end("put_stream", key, fault)
        return size_bytes

    async def create(self, key: str, body: bytes) -> None:
        """Store an object if its key is free, perhaps."""
        create = self.store.put if self.faults.ignores_condition else self.store.create
        fault = await self._begin("create", key, ("late", "conflict"))
        if fault == "late":
            self._postpone("create", key, lambda: create(key, body))
        try:
            await create(key, body)
        finally:
            await self._end("create", key, fault)  # an answer can be lost whatever it would have said

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[StoredObject]:
        """Iterate over objects in key order; a lost answer breaks off after half of them."""
        fault = await self._begin("list", prefix, ())
        rows = [row async for row in self.store.list(prefix, after=after)]
        for row in rows[: len(rows) // 2] if fault == "lost_answer" else rows:
            yield row
        await self._end("list", prefix, fault)

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, perhaps."""
        fault = await self._begin("delete", ", ".join(keys), ())
        await self.store.delete(keys)
        await self._end("delete", ", ".join(keys), fault)

    async def close(self) -> None:
        """Let late writes land, and close the store beneath."""
        await self.settle()
        await self.store.close()

    async def _begin(self, verb: str, key: str, special: tuple[str, ...]) -> str:
        """Roll the dice for a call; raise what keeps it from reaching the store."""
        fault = self._roll((*special, "lost_request", "lost_answer", "unavailable"))
        self.calls.append(Call(verb=verb, key=key, fault=fault if self.reachable else "unreachable"))
        await self._dawdle()
        if self._late and self._dice.random() < 0.5:
            await self._late.pop(0)()
        if not self.reachable:
            self._unreached(verb, key, "no connection", sent=False)
        if fault == "lost_request":
            self._unreached(verb, key, "the connection was reset")
        if fault == "unavailable":
            self._unreached(verb, key, self._dice.choice(["429 TooManyRequests", "503 SlowDown"]), sent=False)
        if fault == "conflict":
            self._unreached(verb, key, "409 ConditionalRequestConflict")
        return fault

    async def _end(self, verb: str, key: str, fault: str) -> None:
        await self._dawdle()
        if fault == "lost_answer":
            self._unreached(verb, key, "the connection was reset")

    def _postpone(self, verb: str, key: str, write: Callable[[], Awaitable[None]]) -> NoReturn:
        async def land() -> None:
            try:
                await write()
            except Exception as error:  # noqa: BLE001 - there is nobody left to tell
                self.calls.append(Call(verb=verb, key=key, fault=f"landed late: {type(error).__name__}"))

        self._late.append(land)
        self._unreached(verb, key, "no answer in time")

    def _unreached(self, verb: str, key: str, found: str, *, sent: bool = True) -> NoReturn:
        if verb == "create" and sent:
            raise CreateUndecided(store=self.url, key=key, found=found)
        raise StoreUnreachable(store=self.url, operation=f"{verb} {key}", found=found)

    def _roll(self, names: Sequence[str]) -> str:
        rolled = self._dice.random()
        for name in names:
            rolled -= getattr(self.faults, name)
            if rolled < 0:
                return name
        return ""

    def _flip(self, body: bytes) -> bytes:
        if not body:
            return body
        at, bit = self._dice.randrange(len(body)), 1 << self._dice.randrange(8)
        return body[:at] + bytes([body[at] ^ bit]) + body[at + 1 :]

    async def _dawdle(self) -> None:
        least, most = self.faults.latency_seconds
        await asyncio.sleep(self._dice.uniform(least, most))
