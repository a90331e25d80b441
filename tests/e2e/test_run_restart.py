"""Starting again: on the same disk or an empty one, after an end in order or a crash; what is sent, and what not."""

from __future__ import annotations

import shutil
import sqlite3
from typing import TYPE_CHECKING

import pytest

from tests.support.fault_proxy import Cut, Rule
from tests.support.scene import kind
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.support.fault_proxy import FaultProxy
    from tests.support.scene import Scene

APP = ["sleep", "600"]  # the application is the test; this is what replicad is the parent of


def started(scene: Scene, *, create: bool = True) -> None:
    """Bring a first run to where a snapshot and some transactions are stored."""
    if create:
        scene.create()
    scene.insert(*range(10), size_bytes=3000)
    scene.daemon.start(APP)
    scene.daemon.until("snapshot_stored")
    scene.insert(10, 11)
    scene.daemon.sync()


def kinds(keys: Iterable[str]) -> set[str]:
    """Return what kinds of objects these are, notes of a handover left out: they are no part of the history."""
    return {kind(key) for key in keys} - {"note"}


def test_a_redeploy_onto_an_empty_disk(scene: Scene) -> None:
    """On an empty disk it restores and goes on with the next TXID, and sends no snapshot and no chunk.

    (#781: TXIDs restarted at 0; #393: everything was uploaded again.)
    """
    started(scene)
    scene.close()
    assert scene.daemon.stop() == 143
    before = scene.keys()
    scene.lose_disk()
    scene.daemon.start(APP)
    assert kinds(scene.keys() - before) == {"claim", "start"}
    assert scene.rows() == list(range(12))
    scene.insert(12)
    assert scene.daemon.sync() == 4
    scene.close()
    assert scene.daemon.stop() == 143
    assert kinds(scene.keys() - before) == {"claim", "start", "segment", "end"}
    assert scene.check_newest() == 4
    assert [len(rows) for rows in scene.states().values()] == [10, 11, 12, 13]


def test_a_redeploy_after_a_crash_and_a_lost_disk(scene: Scene) -> None:
    """A machine that is lost without an end in order is followed by one that has all that was durable."""
    started(scene)
    scene.kill()
    scene.lose_disk()
    before = scene.keys()
    scene.daemon.start(APP)
    assert scene.rows() == list(range(12))
    assert kinds(scene.keys() - before) == {"claim", "start"}
    scene.insert(12)
    assert scene.daemon.sync() == 4


@pytest.mark.parametrize("when", ["after the snapshot", "after a restore"])
def test_a_crash_on_the_same_disk(scene: Scene, when: str) -> None:
    """After SIGKILL of everything, a restart that proves continuity stores nothing at all: the listings are equal."""
    if when == "after the snapshot":
        scene.create()
        scene.daemon.start(APP)
        scene.daemon.until("snapshot_stored")
        wait_until((scene.disk / "app.db-replicad").exists)
    else:
        started(scene)
        scene.kill()
        scene.lose_disk()
        scene.daemon.start(APP)
    scene.kill()
    before = scene.objects()
    scene.daemon.start(APP)
    assert scene.daemon.found("continuity_proven", continuity="same")
    scene.daemon.sync()
    assert scene.objects() == before
    scene.kill()
    assert scene.objects() == before
    scene.daemon.start(APP)
    scene.insert(100)
    scene.daemon.sync()
    assert kinds(set(scene.objects()) - set(before)) == {"claim", "start", "segment"}
    scene.check_newest()


def test_a_crash_with_transactions_on_the_way(remote: Scene, proxy: FaultProxy) -> None:
    """Transactions that were in the WAL alone at SIGKILL are stored one by one: continuity is proven from it."""
    remote.create()
    remote.insert(*range(10), size_bytes=3000)
    remote.daemon.start(APP)
    remote.daemon.until("snapshot_stored")
    remote.insert(10)
    remote.daemon.sync()
    proxy.rules.append(Rule(cut=Cut.BEFORE))
    remote.insert(11, 12, 13)
    remote.kill()
    before = remote.keys()
    remote.insert(14)  # the application writes on while nobody looks
    proxy.rules.clear()
    remote.daemon.start(APP)
    assert remote.daemon.found("continuity_proven", continuity="ahead")
    remote.daemon.sync()
    assert kinds(remote.keys() - before) == {"claim", "start", "segment"}
    assert [len(rows) for rows in remote.states().values()] == [10, 11, 12, 13, 14, 15]
    remote.check_newest()


@pytest.mark.parametrize("when", ["right after the first snapshot", "right after a restore"])
def test_a_crash_before_the_first_segment(remote: Scene, proxy: FaultProxy, when: str) -> None:
    """Rows committed before anything of them was stored are in the database after a crash, also when a checkpoint ran.

    Seen to fail while the state file was written with segments only: the file was taken for one of another history,
    kept aside, and an older state restored over it.
    """
    remote.create()
    remote.insert(0)
    remote.daemon.start(APP)
    remote.daemon.until("snapshot_stored")
    remote.daemon.sync()
    if "restore" in when:
        remote.close()
        remote.daemon.stop()
        remote.lose_disk()
        remote.daemon.start(APP)
    proxy.refuse = True
    remote.insert(1)
    remote.daemon.until("store_unreachable")
    remote.write("PRAGMA wal_checkpoint(PASSIVE)")
    remote.kill()
    remote.insert(2)
    remote.close()
    proxy.refuse = False
    remote.daemon.start(APP)
    remote.insert(3)
    assert remote.rows() == [0, 1, 2, 3]
    remote.daemon.sync()
    remote.check_newest()
    assert list(remote.disk.glob("app.db.*")) == [], "nothing was kept aside"


def test_a_restart_after_an_end_in_order(scene: Scene) -> None:
    """A restart on the same disk after an end in order stores a claim, a start and an end, and no page."""
    started(scene)
    scene.close()
    assert scene.daemon.stop() == 143
    before = scene.keys()
    scene.daemon.start(APP)
    assert scene.daemon.stop() == 143
    assert kinds(scene.keys() - before) == {"claim", "end", "start"}
    scene.daemon.start(APP)
    scene.insert(12)
    assert scene.daemon.sync() == 4
    scene.check_newest()


def test_an_application_that_writes_between_two_runs(scene: Scene) -> None:
    """What an application commits and checkpoints while no replicad runs is stored at the next start, as a snapshot."""
    started(scene)
    scene.close()
    assert scene.daemon.stop() == 143
    scene.insert(12, 13)
    scene.close()  # the last connection: SQLite removes the WAL
    before = scene.keys()
    scene.daemon.start(APP)
    assert scene.daemon.found("continuity_lost")
    scene.daemon.until("snapshot_stored")
    assert "snapshot" in kinds(scene.keys() - before)
    scene.insert(14)
    scene.daemon.sync()
    scene.check_newest()
    assert [len(rows) for rows in scene.states().values()] == [10, 11, 12, 14, 15]


def test_a_sidecar_killed_beside_a_running_application(scene: Scene) -> None:
    """The application writes on while the sidecar is dead; the next sidecar finds each commit, or at least every row.

    With the WAL still there continuity is proven from it, commit by commit. Once SQLite has begun the WAL anew, the
    state is stored as a whole.
    """
    scene.create()
    scene.daemon.start()
    scene.daemon.until("snapshot_stored")
    scene.insert(0, 1)
    scene.daemon.sync()
    scene.daemon.kill()
    scene.insert(2, 3)
    scene.daemon.start()
    scene.daemon.sync()
    assert scene.daemon.found("continuity_proven", continuity="ahead")
    assert [len(rows) for rows in scene.states().values()] == [0, 1, 2, 3, 4]
    scene.daemon.kill()
    for number in range(10, 40):
        scene.insert(number)
        scene.write("PRAGMA wal_checkpoint(TRUNCATE)")
    scene.daemon.start()
    scene.insert(100)
    scene.daemon.sync()
    assert scene.daemon.found("continuity_lost")
    assert scene.check_newest() == 7
    assert list(scene.states().values())[-1] == [0, 1, 2, 3, *range(10, 40), 100]


def test_a_segment_that_was_stored_though_nobody_noted_it(scene: Scene) -> None:
    """When a crash came between the upload and the state file, the head in the bucket decides: nothing is stored twice.

    Seen to fail with the state file's TXID taken for the head: transaction 4 was stored again, under the same number.
    """
    started(scene)
    state = scene.disk / "app.db-replicad"
    older = state.read_bytes()
    scene.insert(12)
    assert scene.daemon.sync() == 4
    scene.kill()
    state.write_bytes(older)
    before = scene.objects()
    scene.daemon.start(APP)
    assert scene.daemon.found("continuity_proven", txid=4)
    scene.insert(13)
    assert scene.daemon.sync() == 5
    new = set(scene.objects()) - set(before)
    assert kinds(new) == {"claim", "start", "segment"}
    assert sum(kind(key) == "segment" for key in new) == 1
    scene.check_newest()


def test_a_disk_of_another_history(scene: Scene) -> None:
    """A file that is not of the stored history is kept aside under another name, and the history restored."""
    started(scene)
    scene.kill()
    for file in scene.disk.iterdir():
        file.unlink()
    scene.close()
    scene.create("INSERT INTO t VALUES (999, 'foreign')")
    scene.daemon.start(APP)
    assert scene.rows() == list(range(12))
    (kept,) = [
        file for file in scene.disk.iterdir() if "diverged" in file.name and not file.name.endswith(("-wal", "-shm"))
    ]
    assert sqlite3.connect(kept).execute("SELECT n FROM t").fetchall() == [(999,)]
    assert scene.daemon.found("local_kept_aside")


def test_a_sidecar_never_replaces_a_file(scene: Scene) -> None:
    """Beside an application that may have it open, a file of another history ends the start, and is left alone."""
    started(scene)
    scene.close()
    assert scene.daemon.stop() == 143
    for file in scene.disk.iterdir():
        file.unlink()
    scene.create("INSERT INTO t VALUES (999, 'foreign')")
    scene.daemon.launch()
    assert scene.daemon.wait() == 1
    assert "an application may have it open" in scene.daemon.lines()
    assert scene.rows() == [999]
    assert not list(scene.disk.glob("*diverged*"))


def test_a_sidecar_beside_an_empty_file(scene: Scene) -> None:
    """An empty file is what SQLite makes when an application opens it: a sidecar does not restore over it.

    Seen to fail when a restore was forced: the application went on writing into a file without a name.
    """
    started(scene)
    scene.close()
    assert scene.daemon.stop() == 143
    scene.lose_disk()
    scene.database.touch()
    scene.daemon.launch()
    assert scene.daemon.wait() != 0
    assert scene.database.stat().st_size == 0
    assert "an application may have it open" in scene.daemon.lines()


def attach_old_disk(scene: Scene) -> None:
    """Let the history go on by a transaction on an empty disk, then put the disk of before in place again."""
    scene.close()
    assert scene.daemon.stop() == 143
    old = scene.folder / "old"
    shutil.copytree(scene.disk, old)
    scene.lose_disk()
    scene.daemon.start(APP)
    scene.insert(12)
    scene.daemon.sync()
    scene.close()
    assert scene.daemon.stop() == 143
    scene.lose_disk()
    shutil.copytree(old, scene.disk, dirs_exist_ok=True)


def test_an_older_disk_is_brought_forward(scene: Scene) -> None:
    """An old volume attached again is brought forward to the head, and what it has already is not fetched."""
    scene.create("INSERT INTO t VALUES (-1, zeroblob(3000000))", "CREATE TABLE u (v)")
    scene.write("DELETE FROM t")
    started(scene, create=False)
    attach_old_disk(scene)
    scene.daemon.start(APP)
    assert scene.rows() == list(range(13))
    (restored,) = scene.daemon.found("restored")
    assert int(str(restored["reused_bytes"])) > 0


def test_a_disk_written_to_while_another_went_on(scene: Scene) -> None:
    """An old disk that was written to while the history went on elsewhere is kept aside: nothing is mixed."""
    started(scene)
    attach_old_disk(scene)
    scene.insert(77)
    scene.close()
    scene.daemon.start(APP)
    assert scene.rows() == list(range(13))
    assert scene.daemon.found("local_kept_aside")


def test_a_redeploy_in_the_middle_of_a_multi_page_database(scene: Scene) -> None:
    """Several redeploys end with the rows of all of them, on one line of history, with one snapshot."""
    scene.create(page_size=1024)
    scene.insert(*range(100), size_bytes=20_000)
    expected = list(range(100))
    for deploy in range(3):
        scene.daemon.start(APP)
        scene.insert(1000 + deploy, size_bytes=20_000)
        expected.append(1000 + deploy)
        scene.close()
        assert scene.daemon.stop() == 143
        scene.lose_disk()
    scene.daemon.start(APP)
    assert scene.rows() == expected
    assert len(scene.keys("snapshot")) == 1
    assert scene.check_newest() == 4
