"""`wal: keep`: a database that stays in a rollback-journal mode, captured by comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.fault_proxy import Rule
from tests.support.scene import kind, measured
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.support.fault_proxy import FaultProxy
    from tests.support.scene import Scene

APP = ["sleep", "600"]
STALL_SECONDS = 1.0  # a commit waits while the database is read, which a shared lock does


@pytest.fixture(autouse=True)
def keep(request: pytest.FixtureRequest) -> None:
    """Leave the journal mode alone."""
    for name in {"scene", "remote"} & set(request.fixturenames):
        request.getfixturevalue(name).daemon.environment["REPLICAD_WAL"] = "keep"


def test_a_whole_life(scene: Scene) -> None:
    """Commits, an end, a lost disk, a crash: all in the mode the application chose, and with its rows."""
    scene.create(wal=False)
    scene.insert(*range(20), size_bytes=3000)
    scene.daemon.start(APP)
    scene.daemon.until("snapshot_stored")
    assert scene.daemon.found("wal_kept")
    assert not scene.daemon.found("wal_converted")
    scene.insert(20)
    assert scene.daemon.sync() == 2
    scene.write("UPDATE t SET v = NULL WHERE n < 5", "DELETE FROM t WHERE n > 15", "VACUUM")
    scene.daemon.sync()
    scene.close()
    assert scene.daemon.stop() == 143
    last = scene.check_newest()
    before = scene.keys()
    scene.lose_disk()
    scene.daemon.start(APP)
    assert scene.rows() == list(range(16))
    assert scene.rows("PRAGMA journal_mode") == ["delete"]
    assert {kind(key) for key in scene.keys() - before} - {"note"} == {"claim", "start"}
    scene.insert(30)
    assert scene.daemon.sync() == last + 1
    scene.kill()
    before = scene.keys()
    scene.daemon.start(APP)
    assert scene.daemon.found("continuity_proven", continuity="same")
    scene.daemon.sync()
    assert scene.keys() == before
    scene.check_newest()
    assert not list(scene.disk.glob("app.db-wal"))


def test_commits_during_a_snapshot(remote: Scene, proxy: FaultProxy) -> None:
    """A snapshot is of one state, though the application commits while it is being sent, and nobody is kept waiting."""
    remote.create(wal=False)
    remote.insert(*range(400), size_bytes=10_000)
    rule = Rule(method="PUT", path="/chunks/", latency_seconds=0.3)
    proxy.rules.append(rule)
    remote.daemon.start()
    wait_until(lambda: rule.matched)
    longest: list[float] = []
    for number in range(10):
        with measured(longest):
            remote.write(f"UPDATE t SET v = randomblob(10000) WHERE n = {number * 40}")
    assert not remote.keys("snapshot")
    assert max(longest) < STALL_SECONDS
    remote.daemon.sync()
    remote.check_newest()
    remote.insert(1000)
    remote.daemon.snapshot()
    remote.check_newest()


def test_a_difference_larger_than_a_segment(remote: Scene, proxy: FaultProxy) -> None:
    """A change too large for memory waits in a temporary file: the lock is not held while it is being sent."""
    remote.daemon.environment["REPLICAD_SEGMENT_BYTES"] = "256KiB"
    remote.create(wal=False)
    remote.daemon.start()
    remote.daemon.sync()
    proxy.refuse = True
    remote.write("BEGIN")
    remote.insert(*range(200), size_bytes=8000)
    remote.write("COMMIT")
    remote.daemon.until("store_unreachable")
    longest: list[float] = []
    for number in range(1000, 1010):
        with measured(longest):
            remote.insert(number)
    assert max(longest) < STALL_SECONDS
    assert {file.name for file in remote.disk.iterdir()} == {"app.db", "app.db-replicad", "app.db-replicad.lock"}
    proxy.refuse = False
    remote.daemon.sync()
    remote.check_newest()


@pytest.mark.parametrize("statements", [["PRAGMA journal_mode=wal"], ["PRAGMA page_size=1024", "VACUUM"]])
def test_an_application_that_converts_its_database(scene: Scene, statements: list[str]) -> None:
    """An application that switches to WAL itself, or to another page size, is followed on; a sync promises no less.

    Seen to fail: what was committed into the WAL was never looked at, and `sync` returned all the same.
    """
    scene.create(wal=False)
    scene.insert(1, 2, 3, size_bytes=3000)
    scene.daemon.start()
    scene.insert(4)
    scene.daemon.sync()
    scene.write(*statements)
    scene.insert(5, 6)
    scene.daemon.sync()
    scene.check_newest()
    assert list(scene.states().values())[-1] == [1, 2, 3, 4, 5, 6]
