"""Duties: work beside capture, each by itself."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicad.errors import StoreUnreachable
from replicad.replicate.duties import do_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.replicate.conftest import Stage


@dataclass
class Worker:
    """A duty that is begun as often as it says, and fails but for the last time."""

    failures: list[Exception]
    on_begin: Callable[[], None] = lambda: None
    begun: int = 0
    done: asyncio.Event = field(default_factory=asyncio.Event)
    name: str = "worker"

    async def run(self) -> None:
        """Fail, or be done."""
        self.begun += 1
        self.on_begin()
        if self.failures:
            raise self.failures.pop(0)
        self.done.set()


async def test_a_duty_that_fails_is_begun_again_and_stops_nobody(stage: Stage) -> None:
    """TRAP: whatever a duty fails with, it is said and begun again; another one and capture go on.

    Seen to fail when only errors of ours were caught: the task group ended with both duties and the test.
    """
    await stage.begin()
    following = stage.follower.following
    failing = Worker([StoreUnreachable(store="memory", operation="list", found="nothing"), RuntimeError("a mistake")])
    steady = Worker([])
    doing = asyncio.create_task(do_all(following, [failing, steady], retry_seconds=0.01))
    await asyncio.wait_for(failing.done.wait(), 10)
    await asyncio.wait_for(doing, 10)
    assert (failing.begun, steady.begun) == (3, 1)
    assert stage.metrics.errors["StoreUnreachable"] == stage.metrics.errors["RuntimeError"] == 1
    stage.insert(2)
    assert await stage.sync() == following.ledger.durable.txid
