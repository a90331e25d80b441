from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from replicad.errors import ObjectMissing
from replicad.store.memory import MemoryStore
from replicad.store.prefixed import PrefixedStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Closing(MemoryStore):
    """A store that counts how often it is closed."""

    closed = 0

    async def close(self) -> None:
        """Count."""
        self.closed += 1


async def test_keys_are_below_the_prefix() -> None:
    """Every operation works below the prefix, and listings are without it."""

    async def parts() -> AsyncIterator[bytes]:
        yield b"3"

    base = MemoryStore("m")
    await base.put("app", b"not below")
    store = PrefixedStore(base, "app/")
    await store.put("a", b"1")
    await store.create("b", b"2")
    await store.put_stream("c", parts())
    assert [row.key async for row in base.list("")] == ["app", "app/a", "app/b", "app/c"]
    assert [row.key async for row in store.list("", after="a")] == ["b", "c"]
    assert await store.get("c") == b"3"
    await store.delete(["a", "b"])
    assert [row.key async for row in base.list("")] == ["app", "app/c"]
    with pytest.raises(ObjectMissing, match="app/a"):
        await store.get("a")
    assert store.url == "memory://m/app"


async def test_prefixes_within_prefixes() -> None:
    """A database below the prefix of a URL has both before its keys."""
    base = MemoryStore("m")
    store = PrefixedStore(PrefixedStore(base, "all my/"), "app.db/")
    await store.put("a", b"1")
    assert [row.key async for row in base.list("")] == ["all my/app.db/a"]
    assert store.url == "memory://m/all%20my/app.db"


async def test_shared_store_stays_open() -> None:
    """Closing one database's view leaves the store to the others; the view that owns it closes it."""
    base = Closing()
    await PrefixedStore(base, "app/").close()
    assert base.closed == 0
    await PrefixedStore(base, "app/", shared=False).close()
    assert base.closed == 1


@pytest.mark.parametrize("prefix", ["", "app", "/app/", "/"])
def test_trap_prefix_without_its_slash(prefix: str) -> None:
    """A prefix that would also match another database's keys is refused: `app` begins `app2/x`.

    Seen to fail: without the check in the constructor.
    """
    with pytest.raises(ValueError, match="slash"):
        PrefixedStore(MemoryStore(), prefix)
