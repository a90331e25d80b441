"""Reading into memory that is used again and again.

Memory for an object of a MiB or more comes from the system and goes back to it with each of them, and the system clears
every page of it anew: of a restore that is a tenth of its processor time.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replicad.store.protocol import ObjectStore

_LONGEST_WAIT_SECONDS = 0.5  # behind it there is one room more
_LOOK_SECONDS = 0.005  # between two looks for a room


class _Room(bytearray):
    """Told apart from memory that an object has to itself."""


class Rooms:
    """Memory for objects that are read one after another, several at once; threads may use it at the same time.

    None is given away before an answer says how long it is: memory that waits for a distant store is of no use to
    anybody. When all rooms are taken, an answer waits for one where it is, in the connection: what is unpacked slower
    than it comes need not be here yet. Where it comes slowly on each connection no room gets free in time, and there
    are more of them from then on.

    Args:
        room_bytes: the size of each; an object that is larger gets memory of its own.
        at_first: how many there are.
    """

    def __init__(self, room_bytes: int, at_first: int) -> None:
        self._room_bytes = room_bytes
        self._free: deque[_Room] = deque()
        self._left = threading.Semaphore(at_first)

    def take(self, n_bytes: int) -> memoryview:
        """Return room for so many bytes, as soon as there is some; blocks."""
        if n_bytes <= self._room_bytes:
            self._left.acquire(timeout=_LONGEST_WAIT_SECONDS)
        return self._room(n_bytes)

    async def taken(self, n_bytes: int) -> memoryview:
        """Do what `take` does, in an event loop."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _LONGEST_WAIT_SECONDS
        fits = n_bytes <= self._room_bytes
        while fits and not self._left.acquire(blocking=False) and loop.time() < until:  # noqa: ASYNC110 - see `give_back`
            await asyncio.sleep(_LOOK_SECONDS)
        return self._room(n_bytes)

    def give_back(self, body: bytes | memoryview) -> None:
        """Use the room of this object for others from now on, if it has one; once for each that was taken.

        Any thread may do so, and knows of no event loop.
        """
        if isinstance(body, memoryview) and isinstance(body.obj, _Room):
            self._free.append(body.obj)
            self._left.release()

    @contextmanager
    def filling(self, body: memoryview) -> Iterator[None]:
        """Give the room of this object back when it does not come to be filled."""
        try:
            yield
        except BaseException:
            self.give_back(body)
            raise

    def _room(self, n_bytes: int) -> memoryview:
        if n_bytes > self._room_bytes:
            return memoryview(bytearray(n_bytes))
        try:
            room = self._free.pop()
        except IndexError:
            room = _Room(self._room_bytes)
        return memoryview(room)[:n_bytes]


class Held:
    """An object that was read, and the memory it may stand in.

    Args:
        body: the object.
        rooms: get its room back.
    """

    def __init__(self, body: bytes | memoryview, rooms: Rooms) -> None:
        self.body = body
        self._rooms = rooms

    def let_go(self) -> None:
        """Have its room used for others from now on. Safe to repeat."""
        body, self.body = self.body, b""
        self._rooms.give_back(body)


async def read_into(store: ObjectStore, key: str, rooms: Rooms) -> bytes | memoryview:
    """Return a whole object, in a room when the store can put it there, else in memory of its own.

    Raises:
        ReplicadError: as `ObjectStore.get`.
    """
    get_into = getattr(store, "get_into", None)
    if get_into is None:
        return await store.get(key)
    body: bytes | memoryview = await get_into(key, rooms)
    return body
