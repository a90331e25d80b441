from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from replicad.errors import CreateUndecided, NoSpace, ObjectExists, ObjectMissing, StoreRefused, StoreUnreachable
from replicad.store.memory import MemoryStore
from replicad.store.metered import OUTCOMES, MeteredStore, measured
from tests.unit.store.conftest import Notes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def test_every_operation_is_told() -> None:
    """Each operation of a store is one request, with the bytes that went each way."""

    async def parts() -> AsyncIterator[bytes]:
        yield b"12"
        yield b"345"

    notes = Notes()
    store = MeteredStore(MemoryStore("m"), notes)
    await store.put("a", b"1234")
    await store.put_stream("b", parts())
    await store.create("c", b"1")
    await store.get("a", start=1)
    assert [row.key async for row in store.list("")] == ["a", "b", "c"]
    await store.delete(["a"])
    await store.close()
    assert store.url == "memory://m"
    assert notes.requests == [
        ("put", "ok", 4, 0),
        ("put", "ok", 5, 0),
        ("create", "ok", 1, 0),
        ("get", "ok", 0, 3),
        ("list", "ok", 0, 0),
        ("delete", "ok", 0, 0),
    ]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ObjectMissing(key="k", store="s"), "missing"),
        (ObjectExists(key="k", store="s"), "exists"),
        (CreateUndecided(key="k", store="s", found="f"), "undecided"),
        (StoreUnreachable(store="s", operation="o", found="f"), "unreachable"),
        (StoreRefused(store="s", operation="o", found="f"), "refused"),
        (NoSpace(path="p", needed_bytes=1, free_bytes=0), "no_space"),
        (asyncio.CancelledError(), "cancelled"),
        (ValueError(), "failed"),
    ],
)
async def test_outcomes(error: BaseException, outcome: str) -> None:
    """Every way a request ends has a name of its own, from a fixed set: it becomes a metric's label."""
    notes = Notes()
    with pytest.raises(type(error)), measured(notes, "get"):
        raise error
    assert notes.requests == [("get", outcome, 0, 0)]
    assert outcome in OUTCOMES


async def test_without_an_observer() -> None:
    """Nobody has to listen."""
    with measured(None, "get") as moved:
        moved.received_bytes = 1
