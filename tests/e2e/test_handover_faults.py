"""A handover in which one side stands still or is cut off: somebody owns, and nothing durable is lost."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import Clients
from tests.support.fault_proxy import Cut, Rule
from tests.support.fleet import PATIENCE_SECONDS, Instance
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.fleet import Fleet

TRIES = 6  # of requests by one that is cut off: about two seconds
BEGINNING = range(5)

STANDSTILLS: dict[str, Callable[[Instance], object]] = {
    "its machine stands still": lambda old: old.signal_all(signal.SIGSTOP),
    "replicad stands still": lambda old: old.daemon.send(signal.SIGSTOP),
    "it is cut off": Instance.cut_off,
}


@pytest.mark.parametrize(("how", "when_fenced"), list(zip(STANDSTILLS, ["freeze", "stop", "freeze"], strict=True)))
def test_an_owner_that_is_silent(fleet: Fleet, figure: Callable[[str], None], how: str, when_fenced: str) -> None:
    """Another takes over unasked; back again the old one adds nothing to the line, and says that it has more."""
    old, new = fleet.instance("old", when_fenced=when_fenced), fleet.instance("new")
    old.own(*BEGINNING)
    STANDSTILLS[how](old)
    alone = how != "its machine stands still"
    if alone:
        old.write(50)  # its application goes on, and must
    figure(f"owner silent, {how}: the new instance was healthy after {new.start():.2f} s")
    assert new.daemon.found("owner_silent")
    new.write(100)
    new.daemon.sync()
    if alone:
        old.write(51)
    before = line(fleet)
    old.proxy.rules.clear()
    old.signal_all(signal.SIGCONT)
    old.daemon.until("fenced")
    if when_fenced == "freeze":
        wait_until(lambda: not old.is_writable(52))
        assert old.is_healthy, "its readers go on"
        assert (old.ownership, old.daemon.status()["owner"]) == ("fenced", False)
        assert (old.metric("replicad_fenced_total"), old.metric("replicad_owner")) == (1, 0)
        assert "fenced" in old.daemon.page("/readyz")
        status = old.stop()
    else:
        status = old.daemon.wait()
    assert status == (11 if alone or when_fenced == "stop" else 143)
    if not alone:
        assert line(fleet) == before
    new.write(101)
    new.daemon.sync()
    assert fleet.rows() == [*BEGINNING, 100, 101]
    assert set(old.rows()) >= ({50, 51} if alone else set())


def line(fleet: Fleet) -> set[str]:
    """Return the keys of all that is part of the history."""
    return {key for key in fleet.objects() if not key.startswith("handover/")}


def test_no_promise_behind_a_standstill(fleet: Fleet) -> None:
    """What the old one uploads before it notices is in a folder that is over: it looks, and its sync never succeeds.

    Seen to fail without the look behind the upload: the sync returned, and the write is on no line.
    """
    old, new = fleet.instance("old"), fleet.instance("new")
    old.own(*BEGINNING)
    uploads = old.proxy.count("PUT", "/log/")
    old.daemon.send(signal.SIGSTOP)
    old.write(50)
    new.start()
    new.write(100)
    new.daemon.sync()
    old.proxy.rules.append(Rule(method="GET", path="/handover/", latency_seconds=2.0))  # it sees to its upload first
    old.daemon.send(signal.SIGCONT)
    with pytest.raises(AssertionError, match=r"the sync|another instance"):
        old.daemon.request("POST", "/sync?timeout_seconds=1")
    assert old.proxy.count("PUT", "/log/") > uploads
    assert old.daemon.found("fenced")
    assert old.daemon.status()["durable_txid"] < old.daemon.status()["captured_txid"]
    assert fleet.rows() == [*BEGINNING, 100]


def test_an_owner_that_was_fenced_starts_again(fleet: Fleet) -> None:
    """What it had alone is kept aside, not mixed into the line; it asks, and takes over what the other one has."""
    old, new = fleet.instance("old"), fleet.instance("new")
    old.own(*BEGINNING)
    old.cut_off()
    old.write(50)
    new.start()
    new.write(100)
    old.kill()
    old.proxy.rules.clear()
    old.start()
    assert old.rows() == [*BEGINNING, 100]
    kept = str(old.daemon.until("local_kept_aside")["kept_as"])
    with contextlib.closing(sqlite3.connect(kept)) as connection:
        assert connection.execute("SELECT n FROM t ORDER BY n").fetchall() == [(n,) for n in (*BEGINNING, 50)]
    assert new.ownership == "handed over"
    old.write(101)
    old.daemon.sync()
    assert fleet.rows() == [*BEGINNING, 100, 101]


@pytest.mark.parametrize("whose", ["the owner", "the newcomer"])
def test_cut_off_during_the_handover(fleet: Fleet, figure: Callable[[str], None], whose: str) -> None:
    """One side's bucket goes away behind the request and comes back: one of them owns, nothing durable is lost."""
    old, new = fleet.instance("old"), fleet.instance("new")
    old.own(*BEGINNING)
    with Clients(old) as clients:
        clients.until_acknowledged(5, by=old)
        new.launch()
        wait_until(lambda: fleet.has("handover/00000002.json"), 20)
        rule = (old if whose == "the owner" else new).cut_off()
        wait_until(lambda: rule.matched >= TRIES, 20)
        _come_back(clients, old, new)
    lost = _settle(fleet, clients, old, new)
    assert whose == "the owner" or not lost
    figure(
        f"{whose} cut off behind the request: the old one {_outcome(old)}, no write for {clients.outage_seconds():.2f}"
        f" s, {len(lost)} writes that were not durable are in the old file alone"
    )


def test_both_cut_off_with_writers_kept_out(fleet: Fleet, figure: Callable[[str], None]) -> None:
    """The bucket goes away before the end is stored: writers are let in again in time, whoever owns when it is back."""
    old, new = fleet.instance("old"), fleet.instance("new")
    old.own(*BEGINNING)
    end = Rule(method="PUT", path="/end.json", cut=Cut.BEFORE)
    old.proxy.rules.append(end)
    with Clients(old) as clients:
        clients.until_acknowledged(5, by=old)
        new.launch()
        wait_until(lambda: end.matched, 20)
        rules = old.cut_off(), new.cut_off()
        old.proxy.rules.remove(end)
        clients.until_acknowledged(5, by=old)
        let_in_seconds = clients.outage_seconds()
        assert let_in_seconds < PATIENCE_SECONDS
        wait_until(lambda: all(rule.matched for rule in rules), 20)
        _come_back(clients, old, new)
    lost = _settle(fleet, clients, old, new)
    figure(
        f"both cut off with writers kept out: let in again after {let_in_seconds:.2f} s, the old one {_outcome(old)},"
        f" {len(lost)} writes that were not durable are in the old file alone"
    )


def _come_back(clients: Clients, old: Instance, new: Instance) -> None:
    """Let both reach the bucket again, and write to the new instance when it is healthy."""
    for instance in (old, new):
        instance.proxy.rules.clear()
    new.until_healthy()
    clients.route(new)
    clients.until_acknowledged(5, by=new)
    clients.stop()


def _settle(fleet: Fleet, clients: Clients, old: Instance, new: Instance) -> set[int]:
    """Check what became of it; return the writes that are in the old instance's file alone."""
    new.daemon.sync()
    assert new.ownership == "owner"
    assert set(fleet.rows()) == set(new.rows())
    assert set(BEGINNING) <= set(new.rows())
    lost = clients.numbers - set(new.rows())
    assert lost <= set(old.rows())
    assert old.ownership in ({"fenced"} if lost else {"fenced", "handed over"})
    assert old.stop() == (11 if lost else 143)
    return lost


def _outcome(old: Instance) -> str:
    if old.daemon.found("reclaimed"):
        return "took over again, and handed over"
    return "was fenced" if old.daemon.found("fenced") else "handed over"
