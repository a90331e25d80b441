"""The bucket goes away while the application writes: it never notices, and nothing is lost when the bucket returns."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from replicad.layout import parse_segment
from replicad.segment import decode
from tests.support.fault_proxy import Answer, Cut, Rule
from tests.support.scene import measured
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.support.fault_proxy import FaultProxy
    from tests.support.scene import Scene

AWAY = {
    "refused": Rule(cut=Cut.BEFORE),
    "hanging": Rule(cut=Cut.DEAF),
    "503": Rule(answer=Answer(status=503)),
}
STALL_SECONDS = 0.5
"""What a commit may take on a machine that is busy with other tests; a commit that waits for a store takes seconds."""

SMALL = {
    "REPLICAD_MAX_WAL_BYTES": "1MiB",
    "REPLICAD_SEGMENT_BYTES": "256KiB",
    "REPLICAD_CHECKPOINT_WAL_BYTES": "256KiB",
}


CLOCK_MS = 1000  # how late a busy machine may look at a commit


def now_ms() -> int:
    """Return the time."""
    return time.time_ns() // 1_000_000


def wal_bytes(scene: Scene) -> int:
    """Return the size of the WAL's file."""
    return Path(f"{scene.database}-wal").stat().st_size


def commit_times_ms(scene: Scene) -> dict[int, int]:
    """Return when each stored transaction was committed, by what its segment says."""
    return {
        transaction.txid: transaction.commit_ms
        for key, body in scene.objects().items()
        if parse_segment(key)
        for transaction in decode(body, what=key).transactions
    }


def begun(remote: Scene) -> None:
    """Bring the daemon to where a snapshot and a segment are stored."""
    remote.create()
    remote.daemon.start()
    remote.daemon.until("snapshot_stored")
    remote.insert(0)
    remote.daemon.sync()


@pytest.mark.parametrize("how", AWAY)
def test_the_application_does_not_notice(remote: Scene, proxy: FaultProxy, how: str) -> None:
    """While the bucket refuses, hangs or fails, commits go on as before; each arrives later with its own time."""
    begun(remote)
    files = sorted(file.name for file in remote.disk.iterdir())
    healthy: list[float] = []
    away: list[float] = []
    for number in range(1, 40):
        with measured(healthy):
            remote.insert(number)
    remote.daemon.sync()
    proxy.rules.append(rule := Rule(cut=AWAY[how].cut, answer=AWAY[how].answer))
    committed_ms = []
    for number in range(100, 140):
        committed_ms.append(now_ms())
        with measured(away):
            remote.insert(number)
        wait_until(lambda: remote.daemon.status()["pending_bytes"])  # it has been looked at
    ended_ms = now_ms()
    wait_until(lambda: rule.matched)
    assert max(away) < max(healthy) * 10 + STALL_SECONDS
    assert sorted(file.name for file in remote.disk.iterdir()) == files, "something was spooled beside the database"
    assert remote.daemon.status()["durable_txid"] == 41
    proxy.rules.clear()
    assert remote.daemon.sync() == 81
    assert remote.check_newest() == 81
    times = commit_times_ms(remote)
    for txid, began_ms in enumerate(committed_ms, 42):
        assert began_ms - CLOCK_MS <= times[txid] <= ended_ms + CLOCK_MS, "the time is the commit's, not the upload's"
    states = list(remote.states().values())
    assert [rows[-1] for rows in states[-40:]] == list(range(100, 140))


def test_past_max_wal_bytes(remote: Scene, proxy: FaultProxy) -> None:
    """Past max_wal_bytes the WAL is let go, loudly: it begins again, and the state is compared when the bucket returns.

    Until then nothing is promised: neither a sync nor a snapshot, for nothing protects the frames that they would read.
    """
    remote.daemon.environment |= SMALL
    begun(remote)
    proxy.refuse = True
    longest: list[float] = []
    for number in range(1000, 1500):
        with measured(longest):
            remote.insert(number, size_bytes=8000)
    remote.daemon.until("wal_let_go")
    sizes = []
    for number in range(2000, 2500):
        remote.insert(number, size_bytes=8000)
        sizes.append(wal_bytes(remote))
    assert sizes[-1] < sizes[100] * 1.1, "the WAL goes on growing"
    assert max(longest) < STALL_SECONDS
    remote.write("PRAGMA wal_checkpoint(TRUNCATE)")  # the WAL is empty now, and nothing of it was read
    assert remote.program("sync", "--timeout", "200ms").returncode != 0
    with pytest.raises(TimeoutError):
        remote.daemon.request("POST", "/snapshot", timeout_seconds=0.5)
    proxy.refuse = False
    remote.daemon.until("resynchronised", reason="wal_let_go")
    remote.insert(3000)
    remote.daemon.sync()
    remote.check_newest()
    order = [0, *range(1000, 1500), *range(2000, 2500), 3000]
    for txid, rows in remote.states().items():
        assert rows == order[: len(rows)], f"TXID {txid} is a state that never was"


BACKLOG_BYTES = 128 << 20


def test_memory_does_not_grow_with_the_backlog(remote: Scene, proxy: FaultProxy) -> None:
    """TRAP: the backlog of an outage stays in the WAL: the daemon's memory is what segments in memory take (#1477).

    Seen to fail with `segment_bytes` at half its size: it took more than its size.
    """
    remote.daemon.environment |= {"REPLICAD_SEGMENT_BYTES": "2MiB"}
    begun(remote)
    proxy.rules.append(rule := Rule(cut=Cut.BEFORE))
    remote.insert(*range(1, 5), size_bytes=2 << 20)
    remote.daemon.until("store_unreachable")
    before = remote.daemon.most_resident_bytes()
    remote.insert(*range(5, 5 + (BACKLOG_BYTES >> 20)), size_bytes=1 << 20)
    wait_until(lambda: remote.daemon.status()["pending_bytes"] > BACKLOG_BYTES)
    assert wal_bytes(remote) > BACKLOG_BYTES
    proxy.rules.remove(rule)
    remote.daemon.sync()
    grown = remote.daemon.most_resident_bytes() - before
    assert grown < BACKLOG_BYTES // 3
    remote.check_newest()


def test_a_crash_during_an_outage(remote: Scene, proxy: FaultProxy) -> None:
    """The WAL is the queue, and it survives SIGKILL: the next daemon stores each transaction of the outage."""
    begun(remote)
    proxy.refuse = True
    remote.insert(*range(1, 30))
    remote.daemon.until("store_unreachable")
    remote.insert(*range(30, 60))
    remote.daemon.kill()
    remote.insert(*range(60, 70))
    proxy.refuse = False
    remote.daemon.start()
    assert remote.daemon.found("continuity_proven", continuity="ahead")
    assert remote.daemon.sync() == 71
    assert remote.check_newest() == 71
    assert [len(rows) for rows in remote.states().values()] == list(range(71))


def test_the_first_snapshot_in_an_outage(remote: Scene, proxy: FaultProxy) -> None:
    """A WAL that outgrows max_wal_bytes before anything could be stored is let go, and all is there when the bucket is.

    Seen to fail: the first snapshot was begun again twenty times a second for ever, also when the bucket had returned.
    """
    remote.daemon.environment |= SMALL
    remote.create()
    proxy.rules.append(Rule(method="PUT", path="/chunks/", answer=Answer(status=503)))
    remote.daemon.start()
    for number in range(800):
        remote.insert(number, size_bytes=8000)
    wait_until(lambda: remote.daemon.found("snapshot_failed") or remote.daemon.found("continuity_lost"), 30)
    proxy.rules.clear()
    remote.daemon.sync()
    remote.check_newest()
    assert len(remote.daemon.found("snapshot_failed")) < 20


def test_credentials_that_expire(remote: Scene, proxy: FaultProxy) -> None:
    """A bucket that refuses is told from one that is away, and what waited is sent when it accepts again."""
    begun(remote)
    rule = Rule(method="PUT", answer=Answer(status=403, code="ExpiredToken"))
    proxy.rules.append(rule)
    remote.insert(1)
    line = remote.daemon.until("store_refused")
    assert "ExpiredToken" in str(line["error"])
    assert not remote.daemon.found("store_unreachable")
    proxy.rules.clear()
    assert remote.daemon.sync() == 3
    remote.check_newest()


def test_an_oversized_transaction_that_breaks_off(remote: Scene, proxy: FaultProxy) -> None:
    """A transaction larger than a segment is streamed; when the bucket fails in its middle it begins anew.

    Nothing is visible under its key before it is whole, and no part of a broken upload stays in the bucket.
    """
    remote.daemon.environment |= {"REPLICAD_SEGMENT_BYTES": "256KiB"}
    begun(remote)
    proxy.rules.append(cut := Rule(method="PUT", path="partNumber=2", cut=Cut.REQUEST, times=3))
    remote.write("BEGIN")
    remote.insert(*range(100, 210), size_bytes=90_000)
    remote.write("COMMIT")
    wait_until(lambda: cut.matched >= 2, 30)
    assert remote.daemon.status()["durable_txid"] == 2
    remote.insert(1)
    assert remote.daemon.sync() == 4
    remote.check_newest()
    assert [len(rows) for rows in remote.states().values()] == [0, 1, 111, 112]
    assert remote.open_uploads() == 0


def test_a_lost_answer_stores_nothing_twice(remote: Scene, proxy: FaultProxy) -> None:
    """A segment whose upload succeeded without an answer is sent again under the same name: one object, no new TXID."""
    begun(remote)
    proxy.rules.append(Rule(method="PUT", path="/log/", cut=Cut.ANSWER, times=2))
    remote.insert(1)
    assert remote.daemon.sync() == 3
    assert len([key for key in remote.keys("segment") if "0000000000000003" in key]) == 1
    remote.check_newest()
