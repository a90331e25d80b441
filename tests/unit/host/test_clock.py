from __future__ import annotations

import time

import pytest

from replicad.host.clock import SystemClock
from tests.support.clock import ManualClock


def test_system_clock() -> None:
    """The wall clock is Unix time in milliseconds, the other one only goes forwards."""
    clock = SystemClock()
    before = time.time()
    assert before * 1_000 - 1 <= clock.now_ms() <= time.time() * 1_000 + 1
    first = clock.monotonic()
    assert clock.monotonic() >= first


def test_manual_clock() -> None:
    """A manual clock moves only when told, and its wall time alone can go back."""
    clock = ManualClock(now_ms=5_000)
    started = clock.monotonic()
    assert (clock.now_ms(), clock.now_ms()) == (5_000, 5_000)
    clock.advance(1.5)
    assert (clock.now_ms(), clock.monotonic() - started) == (6_500, 1.5)
    clock.turn_wall(-4)
    assert (clock.now_ms(), clock.monotonic() - started) == (2_500, 1.5)
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1)
