"""What the command does before it restores: it asks the store while it loads what restores."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from replicad.cli.restoring import _listed_meanwhile
from replicad.errors import StoreUnreachable
from replicad.store.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from replicad.store.protocol import StoredObject


class Away(MemoryStore):
    """A store that cannot be reached."""

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[StoredObject]:
        """Fail at the first object."""
        async for found in super().list("", after=after):
            yield found
        raise StoreUnreachable(store=self.url, operation=f"list {prefix}", found="nothing")


def test_what_restores_is_not_loaded_before_the_store_is_asked() -> None:
    """The command's own module is loaded without it: it would keep the store from being asked."""
    code = "import sys, replicad.cli.restoring; print('replicad.restore.restore' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "False\n"


async def test_the_listing_is_there_or_says_why_not() -> None:
    """Whoever waits for it gets the listing, or its error as it is."""
    async with _listed_meanwhile(MemoryStore()) as listing:
        assert (await listing).segments == ()
    async with _listed_meanwhile(Away()) as listing:
        with pytest.raises(StoreUnreachable):
            await listing


@pytest.mark.parametrize("store", [MemoryStore(), Away()])
async def test_a_listing_that_nobody_waits_for_is_given_up(store: MemoryStore) -> None:
    """A restore that fails for another reason leaves no request behind, and not a word about it.

    Seen to fail ("Task exception was never retrieved") without the look at the exception.
    """
    said: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    with pytest.raises(ZeroDivisionError):
        async with _listed_meanwhile(store) as listing:
            raise ZeroDivisionError
    assert listing.done()
    del listing
    gc.collect()
    assert said == []
