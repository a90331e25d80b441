"""A store that goes away after so many reads: each step of a restore can be made its last."""

from __future__ import annotations

from replicad.errors import StoreUnreachable
from replicad.store.memory import MemoryStore


class DyingStore(MemoryStore):
    """Shows another store's objects for `left` reads more."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__()
        self.left = 0
        self._objects = store._objects

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """Read, or be gone."""
        self.left -= 1
        if self.left < 0:
            raise StoreUnreachable(store=self.url, operation="GET", found="a test")
        return await super().get(key, start=start, stop=stop)
