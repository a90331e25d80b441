from __future__ import annotations

import asyncio

import pytest

from replicad.position import TXID
from replicad.replicate.ledger import Ledger, Mark
from tests.support.waiting import wait_until_async


def mark(txid: int) -> Mark:
    """Return a mark at one second a transaction."""
    return Mark(txid=TXID(txid), ms=txid * 1000)


async def test_a_waiter_is_let_go_at_its_transaction() -> None:
    """Whoever waits for a transaction goes on when it, or a later one, is durable, and not before."""
    ledger = Ledger()
    ledger.begin(mark(5))
    await ledger.until_durable(TXID(5))
    waiting = {txid: asyncio.create_task(ledger.until_durable(TXID(txid))) for txid in (6, 7, 9)}
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting.values())
    await ledger.now_durable(mark(7))
    await wait_until_async(lambda: waiting[6].done() and waiting[7].done())
    assert not waiting[9].done()
    await ledger.now_durable(mark(12))
    await waiting[9]


async def test_durable_never_goes_back() -> None:
    """A mark that comes late does not take back what was reported."""
    ledger = Ledger()
    await ledger.now_durable(mark(8))
    await ledger.now_durable(mark(6))
    assert ledger.durable == mark(8)


def test_what_is_pending() -> None:
    """Pending is what was captured and is not durable."""
    ledger = Ledger()
    ledger.begin(mark(5))
    assert ledger.pending_transactions == 0
    ledger.captured = mark(9)
    assert ledger.pending_transactions == 4


@pytest.mark.parametrize(("oldest_ms", "expected"), [(None, 0.0), (10_000, 5.0), (15_000, 0.0), (20_000, 0.0)])
def test_lag(oldest_ms: int | None, expected: float) -> None:
    """The lag is the age of the oldest commit that is not durable; none is none, also when the clock jumped back."""
    ledger = Ledger()
    ledger.oldest_pending_ms = oldest_ms
    assert ledger.lag_seconds(15_000) == expected
