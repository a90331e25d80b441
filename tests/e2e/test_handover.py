"""A rolling deploy, a start by mistake, a restart: one instance owns, and nothing that was acknowledged is lost."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import Clients
from tests.support.fault_proxy import Cut, Rule
from tests.support.fleet import Fleet
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.fleet import Instance
    from tests.support.moto_server import MotoServer

STEADY = {"handover_poll_interval": "1s", "handover_timeout": "10s"}
"""On a busy machine the owner must not be taken for dead: then writes are lost, as agreed."""


@pytest.mark.parametrize("on_handover", ["freeze", "stop"])
def test_a_rolling_deploy(fleet: Fleet, figure: Callable[[str], None], on_handover: str) -> None:
    """The new instance is healthy before the old one is stopped, and has every write that was acknowledged."""
    old = fleet.instance("old", on_handover=on_handover, **STEADY)
    new = fleet.instance("new", on_handover=on_handover, **STEADY)
    old.start()
    with Clients(old) as clients:
        clients.until_acknowledged(20, by=old)
        clients.route(old, new)
        healthy_seconds = new.start()
        clients.route(new)
        clients.until_acknowledged(20, by=new)
        assert old.ownership == "handed over"
        clients.stop()
    if on_handover == "freeze":
        assert clients.reads
        assert not clients.refused_reads
    assert old.stop() == 143
    assert clients.numbers <= set(new.rows())
    puts = [seen.path for seen in new.proxy.seen if seen.method == "PUT"]
    request = next(number for number, path in enumerate(puts) if "/handover/00000002.json" in path)
    assert not [path for path in puts[request:] if "/probes/" in path], "the store is tried before writers wait"
    assert new.stop() == 143
    assert clients.numbers <= set(fleet.rows())
    assert [stretch.epoch for stretch in fleet.history().line] == [2, 1]
    last = max(answered.ended_at for answered in clients.by(old))
    outage_seconds = min(answered.ended_at for answered in clients.by(new)) - last
    figure(
        f"rolling deploy, on_handover={on_handover}: healthy after {healthy_seconds:.2f} s, no write for"
        f" {outage_seconds:.2f} s ({len(clients.refused)} refused and tried again), {len(clients.acknowledged)} writes"
        f" kept, {len(clients.refused_reads)} of {len(clients.reads) + len(clients.refused_reads)} reads refused"
    )


def test_an_owner_that_is_stopped_during_the_handover(fleet: Fleet, figure: Callable[[str], None]) -> None:
    """A platform that stops the old instance early has it end its epoch all the same: nobody waits for a timeout.

    Seen to fail while only an owner that nobody had asked ended its epoch: the newcomer waited for handover_timeout.
    """
    old, new = fleet.instance("old", **STEADY), fleet.instance("new", **STEADY)
    old.start()
    old.write(*range(5))
    old.proxy.rules.append(Rule(method="PUT", path="/end.json", cut=Cut.DEAF, times=1))
    new.launch()
    wait_until(lambda: old.proxy.rules[0].matched, 20)
    assert old.ownership == "handing over"
    began = time.monotonic()
    assert old.stop() == 143
    new.until_healthy()
    figure(f"owner stopped during the handover: the new instance was healthy {time.monotonic() - began:.2f} s later")
    assert not new.daemon.found("owner_silent")
    assert new.rows() == list(range(5))


WRITES = 5  # to each of the two
CHAINS = 2  # at the same time, each with a bucket of its own


@pytest.mark.parametrize("races", [6, pytest.param(20, marks=pytest.mark.soak)])
def test_two_at_once(tmp_path: Path, moto: MotoServer, figure: Callable[[str], None], races: int) -> None:
    """Of two that start at once one owns and the other takes over in order; all that a sync promised is on the line.

    The buckets of the races are empty, or were left in order, or by owners that were killed.
    """
    with ThreadPoolExecutor(CHAINS) as pool:
        chains = [pool.submit(_race_again_and_again, tmp_path / str(n), moto, races // CHAINS) for n in range(CHAINS)]
        ends = [end for chain in chains for end in chain.result()]
    figure(f"two at once, {len(ends)} times: {ends.count('handed over')} handed over, {ends.count('fenced')} fenced")
    assert len(ends) == races


def _race_again_and_again(folder: Path, moto: MotoServer, times: int) -> list[str]:
    """Let two start at once on empty disks, over and over with one bucket; return what became of each first owner."""
    ends: list[str] = []
    numbers = count()
    durable: set[int] = set()
    with Fleet(folder, moto) as fleet:
        for race in range(times):
            pair = [fleet.instance(f"{race}{letter}") for letter in "ab"]
            for instance in pair:
                instance.launch()
            durable |= _until_settled(pair, numbers)
            owner, other = sorted(pair, key=lambda one: one.ownership != "owner")
            assert owner.ownership == "owner"
            ends.append(other.ownership)
            assert other.ownership == "handed over" or owner.daemon.found("owner_silent"), "only a silent one is fenced"
            owner.write(last := next(numbers))
            owner.daemon.sync()
            durable.add(last)
            assert durable <= set(owner.rows())
            assert set(fleet.rows()) == set(owner.rows())
            for instance in pair:
                if race % 2:
                    instance.kill()
                else:
                    assert instance.stop() in ({143} if ends[-1] == "handed over" else {143, 11})
    return ends


def _until_settled(pair: list[Instance], numbers: Iterator[int]) -> set[int]:
    """Write to each a few times from when it is healthy on, until both have been; return what they called durable."""
    durable: set[int] = set()
    tries = Counter[str]()

    def settled() -> bool:
        for instance in pair:
            if tries[instance.name] < WRITES and instance.is_healthy:
                tries[instance.name] += 1
                if instance.is_writable(number := next(numbers)) and _is_durable(instance):
                    durable.add(number)
        return tries.total() == WRITES * len(pair)

    wait_until(settled, 40)
    return durable


def _is_durable(instance: Instance) -> bool:
    """Return whether a sync succeeded; an instance that was overtaken cannot promise anything any more."""
    with contextlib.suppress(AssertionError, TimeoutError):
        instance.daemon.request("POST", "/sync?timeout_seconds=0.5", timeout_seconds=2)
        return True
    return False


@pytest.mark.parametrize("disk", ["the same disk", "an empty disk"])
def test_an_owner_that_is_killed_starts_again(fleet: Fleet, figure: Callable[[str], None], disk: str) -> None:
    """After SIGKILL all that was durable is there: on its disk at once, on an empty one after three missed polls."""
    old = fleet.instance("old")
    first_seconds = old.start()
    old.write(*range(20))
    old.daemon.sync()
    old.write(20)
    old.kill()
    if disk == "an empty disk":
        shutil.rmtree(old.disk)
        old.disk.mkdir()
    seconds = old.start()
    assert set(range(20)) <= set(old.rows()) <= set(range(21))
    assert disk == "an empty disk" or 20 in old.rows()
    assert bool(old.daemon.found("owner_silent")) == (disk == "an empty disk")
    old.write(100)
    old.daemon.sync()
    assert fleet.rows() == old.rows()
    figure(f"killed and started again on {disk}: healthy after {seconds:.2f} s ({first_seconds:.2f} s at first)")
