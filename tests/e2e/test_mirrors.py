"""Mirrors of a real daemon: when the replica is lost, when the mirror is, and what a daemon on the mirror does."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

from replicad.plan.copying import is_history
from tests.support.daemon import DaemonProcess
from tests.support.oracle import StoredHistory, read_folder
from tests.support.scene import Scene, connect, rows_of
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fault_proxy import FaultProxy
    from tests.support.moto_server import MotoServer

QUICK = {"connect_timeout": "1s", "request_timeout": "2s", "retry_timeout": "100ms", "handover_poll_interval": "200ms"}


def until_copied(daemon: DaemonProcess, txid: int) -> None:
    """Wait until every mirror reports that it has a transaction."""
    wait_until(lambda: all(one["copied_txid"] >= txid for one in daemon.status()["mirrors"]), 20)


def moved(scene: Scene, mirror: str) -> DaemonProcess:
    """Return a daemon on a new disk whose replica is the mirror."""
    disk = scene.folder / "moved"
    disk.mkdir()
    return DaemonProcess(disk / "app.db", mirror, disk, QUICK)


def test_when_the_replica_is_lost_the_mirror_has_what_it_reported(tmp_path: Path) -> None:
    """Bucket and disk gone at once: what was reported copied is restored, and a daemon goes on from there."""
    mirror = f"file://{tmp_path}/mirror"
    with Scene(tmp_path, settings={**QUICK, "mirrors": mirror}) as scene:
        scene.create()
        scene.daemon.start()
        for number in range(20):
            scene.insert(number)
        txid = scene.daemon.sync()
        until_copied(scene.daemon, txid)
        scene.daemon.kill()
        scene.lose_disk()
        shutil.rmtree(scene.bucket)
        ended = scene.program("restore", "--replica", mirror, "--output", str(tmp_path / "out.db"), "--json")
        assert ended.returncode == 0, ended.stderr
        assert json.loads(ended.stdout)["txid"] == txid
        assert rows_of(tmp_path / "out.db") == list(range(20))
        successor = moved(scene, mirror)
        try:
            successor.start()
            connection = connect(successor.database)
            connection.execute("INSERT INTO t VALUES (20, 'more')")
            connection.close()
            assert successor.sync() == txid + 1
            assert successor.stop() == 0
        finally:
            successor.kill()
        assert StoredHistory(read_folder(tmp_path / "mirror/app.db")).newest()[0] == txid + 1


def test_a_mirror_in_another_bucket_that_was_away(tmp_path: Path, moto: MotoServer, proxy: FaultProxy) -> None:
    """From a bucket to a bucket, through an outage of the second: nothing waits for it, and it catches up."""
    mirror = moto.new_bucket_url("second", endpoint=proxy.endpoint)
    key_id, secret = tmp_path / "id", tmp_path / "secret"
    key_id.write_text("mirror-id")
    secret.write_text("mirror-secret")
    place = {"replica": mirror, "s3_access_key_id_file": str(key_id), "s3_secret_access_key_variable": "SECOND_SECRET"}
    with Scene(tmp_path, server=moto, settings={**QUICK, "mirrors": json.dumps([place])}) as scene:
        scene.daemon.environment["SECOND_SECRET"] = secret.read_text()
        scene.create()
        scene.daemon.start()
        scene.insert(0)
        until_copied(scene.daemon, scene.daemon.sync())
        proxy.refuse = True
        for number in range(1, 10):
            scene.insert(number)
            txid = scene.daemon.sync()
        scene.daemon.until("mirror_failed")
        status = scene.daemon.status()
        assert (status["state"], status["lag_seconds"]) == ("following", 0)
        assert status["mirrors"][0]["state"] == "failing"
        proxy.refuse = False
        until_copied(scene.daemon, txid)
        scene.daemon.until("mirror_recovered")
        assert scene.daemon.stop() == 0
        assert len(scene.daemon.found("mirror_failed")) == 1
        assert "mirror-secret" not in scene.daemon.lines()
        bucket = mirror.removeprefix("s3://").partition("/")[0]
        ours = {key: body for key, body in scene.objects().items() if is_history(key)}
        assert moto.objects(bucket, "second/app.db/") == ours


def test_a_copy_of_a_bucket_while_its_daemon_works(tmp_path: Path, moto: MotoServer) -> None:
    """From a bucket to a folder, again and again beside a daemon that writes: each copy is a state there was."""
    with Scene(tmp_path, server=moto, settings=QUICK) as scene:
        scene.create()
        scene.daemon.start()
        reached = 0
        for begin in range(0, 40, 10):
            for number in range(begin, begin + 10):
                scene.insert(number)
            if begin == 20:
                scene.daemon.snapshot()
            ended = scene.program("copy", f"file://{tmp_path}/copy", "--json")
            assert ended.returncode == 0, ended.stderr
            txid, state = StoredHistory(read_folder(tmp_path / "copy/app.db")).newest()
            assert txid >= reached
            assert state.pages
            reached = txid
        scene.daemon.stop()
        ended = scene.program("copy", f"file://{tmp_path}/copy", "--verify", "--json")
        assert ended.returncode == 0, ended.stderr
        assert read_folder(tmp_path / "copy/app.db") == {
            key: body for key, body in scene.objects().items() if is_history(key)
        }


def test_a_handover_and_crashes_leave_one_history_in_the_mirror(tmp_path: Path) -> None:
    """Two instances with one mirror hand over, and one dies now and then: in the end it has all, as the replica."""
    mirror = f"file://{tmp_path}/mirror"
    with Scene(tmp_path, settings={**QUICK, "mirrors": mirror}) as scene:
        scene.create()
        second = scene.folder / "second"
        second.mkdir()
        settings = {**QUICK, "mirrors": mirror, "sync_interval": "20ms"}
        other = DaemonProcess(second / "app.db", scene.replica, second, settings)
        try:
            for begin in range(0, 20, 5):  # killed while it copies, and begun again on the same disk
                scene.daemon.start()
                scene.insert(*range(begin, begin + 5))
                scene.daemon.sync()
                scene.daemon.kill()
            scene.daemon.start()
            other.start()
            assert scene.daemon.found("handed_over")
            connection = connect(other.database)
            connection.execute("INSERT INTO t VALUES (20, 'second')")
            connection.close()
            until_copied(other, other.sync())
            assert other.stop() == 0
            assert not other.found("mirror_failed")
            assert not scene.daemon.found("mirror_failed")
            assert scene.daemon.stop() == 0
        finally:
            other.kill()
        ours = {key: body for key, body in scene.objects().items() if is_history(key)}
        assert read_folder(tmp_path / "mirror/app.db") == ours
        path = scene.restore("--replica", mirror)
        assert rows_of(path) == list(range(21))


def test_a_mirror_of_a_history_that_was_rolled_up(remote: Scene, tmp_path: Path) -> None:
    """The mirror has the roll-up and no more what it replaced; with the replica gone each commit is restored from it.

    Seen to fail (it never arrived there) while copies took roll-ups for damaged.
    """
    mirror = f"file://{tmp_path}/mirror"
    settings = {"REPLICAD_SYNC_INTERVAL": "0s", "REPLICAD_ROLLUP_GRACE": "1s", "REPLICAD_MIRRORS": mirror}
    remote.daemon.environment |= settings
    remote.create()
    remote.daemon.start()
    remote.daemon.until("snapshot_stored")
    for number in range(70):
        remote.insert(number)
        last = remote.daemon.sync()
    remote.daemon.until("rolled_up_deleted")
    until_copied(remote.daemon, last)
    ours = {key: body for key, body in remote.objects().items() if is_history(key)}
    wait_until(lambda: read_folder(tmp_path / "mirror/app.db") == ours)
    assert sum("/log/" in key for key in ours) == 1 + 70 - 64
    remote.kill()
    states = {txid: state.pages for txid, state in StoredHistory(read_folder(tmp_path / "mirror/app.db")).states()}
    assert sorted(states) == list(range(1, last + 1))
    for txid in (2, 33, 65, last):
        path = remote.restore("--replica", mirror, "--txid", str(txid), into=f"{txid}.db")
        assert rows_of(path) == list(range(txid - 1))
    verified = remote.program("verify", "--replica", mirror, "--level", "bodies", "--json")
    assert (verified.returncode, json.loads(verified.stdout)["state"]) == (0, "OK"), verified.stderr
