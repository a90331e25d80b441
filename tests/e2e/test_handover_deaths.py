"""A handover in which the newcomer dies at each step: the owner goes on or takes over again, and all is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import Clients
from tests.support.fault_proxy import Cut, Rule
from tests.support.fleet import PATIENCE_SECONDS
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.fleet import Fleet, Instance

BEGINNING = range(5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """Where a newcomer dies: what holds it there, and how that is seen."""

    hold: Rule  # on its own network
    slow: Rule | None = None  # on the owner's
    reached: Callable[[Fleet, Instance], bool]
    disturbed: bool = True  # whether the owner's writers were kept out at all
    starts_again: bool = False


def held(method: str, path: str) -> Rule:
    """Return the rule that lets a newcomer make no such request."""
    return Rule(method=method, path=path, cut=Cut.DEAF)


WAITING = ("GET", "/claims/00000002.json")  # what a newcomer looks at first after its request
DEATHS: dict[str, Callable[[], Death]] = {
    "while it restores": lambda: Death(
        hold=held("GET", "/log/"),
        reached=lambda _, new: bool(new.daemon.found("warming") and new.proxy.rules[0].matched),
        disturbed=False,
    ),
    "after its request": lambda: Death(
        hold=held(*WAITING), reached=lambda fleet, _: fleet.has("handover/00000002.json"), starts_again=True
    ),
    "after the owner's answer": lambda: Death(
        hold=held(*WAITING),
        slow=Rule(method="PUT", path="/end.json", latency_seconds=1.0, times=1),
        reached=lambda fleet, _: fleet.instances[0].ownership == "handing over",
    ),
    "after the owner's end": lambda: Death(
        hold=held(*WAITING), reached=lambda fleet, _: fleet.has("epochs/00000001/end.json")
    ),
    "after its claim": lambda: Death(
        hold=held("PUT", "/epochs/00000002/start.json"),
        reached=lambda fleet, new: bool(new.proxy.rules[0].matched and fleet.instances[0].ownership == "handed over"),
        starts_again=True,
    ),
}


@pytest.mark.parametrize("step", DEATHS)
def test_a_newcomer_that_dies(fleet: Fleet, figure: Callable[[str], None], step: str) -> None:
    """The owner goes on, or takes over again within handover_timeout; the newcomer's next start finds everything."""
    old, new = fleet.instance("old"), fleet.instance("new")
    old.own(*BEGINNING)
    death = DEATHS[step]()
    new.proxy.rules.append(death.hold)
    old.proxy.rules.extend([death.slow] if death.slow else [])
    with Clients(old) as clients:
        clients.until_acknowledged(5, by=old)
        new.launch()
        wait_until(lambda: death.reached(fleet, new), 20)
        new.kill()
        if death.disturbed:
            old.daemon.until("reclaimed")
        clients.until_acknowledged(20, by=old)
        clients.stop()
    assert bool(clients.refused) == death.disturbed
    assert not clients.refused_reads
    assert clients.outage_seconds() < PATIENCE_SECONDS
    figure(f"newcomer dies {step}: no write for {clients.outage_seconds():.2f} s")
    wait_until(lambda: old.ownership == "owner")  # writers were let in again a moment before it says so
    assert old.metric("replicad_fenced_total") == 0
    old.daemon.sync()
    everything = [*BEGINNING, *sorted(clients.numbers - set(BEGINNING))]
    assert fleet.rows() == everything
    if death.starts_again:
        new.proxy.rules.clear()
        new.start()
        assert new.rows() == everything
        assert old.ownership == "handed over"


def test_a_newcomer_that_dies_after_its_start(fleet: Fleet) -> None:
    """Once it has written it is the owner, dead or alive: the old one stays retired, and its next start has all."""
    old, new = fleet.instance("old"), fleet.instance("new")
    old.own(*BEGINNING)
    new.proxy.rules.append(held("GET", "/claims/00000003.json"))
    with Clients(old) as clients:
        new.launch()
        wait_until(lambda: fleet.has("epochs/00000002/start.json"), 20)
        new.kill()
        old.daemon.until("handed_over")
        clients.stop()
    new.proxy.rules.clear()
    new.start()
    assert set(new.rows()) == clients.numbers | set(BEGINNING)
    assert not old.is_writable(1000)
    assert old.stop() == 143
    new.write(1001)
    new.daemon.sync()
    assert set(fleet.rows()) == clients.numbers | {*BEGINNING, 1001}


def test_an_application_that_was_stopped_for_nothing(fleet: Fleet) -> None:
    """With on_handover: stop, the owner that goes on has no application any more: it ends, to be started again.

    Seen to fail: it owned and said that it was ready, without an application, until somebody stopped it.
    """
    old, new = fleet.instance("old", on_handover="stop"), fleet.instance("new")
    old.own(*BEGINNING)
    new.proxy.rules.append(held(*WAITING))
    new.launch()
    old.daemon.until("handover_begun")
    new.kill()
    assert old.daemon.wait() == 143
    assert old.daemon.found("reclaimed")
    old.start()
    old.write(100)
    old.daemon.sync()
    assert fleet.rows() == [*BEGINNING, 100]
