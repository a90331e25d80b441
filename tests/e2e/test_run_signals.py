"""Signals at every stage of a run: what they end, what they wait for, and that nothing is lost by them."""

from __future__ import annotations

import shlex
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.fault_proxy import Cut, Rule
from tests.support.scene import has_ended
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.support.fault_proxy import FaultProxy
    from tests.support.scene import Scene

SERVER = """
import os, signal, sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None)
def caught(signum, frame):
    db.execute('insert into t (v) values (?)', (signum,))
    {then}
for signum in (signal.SIGTERM, signal.SIGINT):
    signal.signal(signum, caught)
db.execute('insert into t (v) values (?)', ('up',))
while True:
    time.sleep(0.01)
"""


def server(scene: Scene, then: str) -> list[str]:
    """Return an application that commits a row when it is up and one for each signal, and then does as told."""
    return [sys.executable, "-S", "-c", SERVER.format(then=then), str(scene.database)]


def start(scene: Scene, then: str) -> None:
    """Start the server, and wait until it is up."""
    scene.create()
    scene.daemon.start(server(scene, then))
    wait_until(lambda: scene.rows("SELECT v FROM t") == ["up"], 30)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_reaches_the_application_once(scene: Scene, signum: signal.Signals) -> None:
    """SIGTERM and SIGINT are passed on once; what the application commits on its way out is stored, its status kept."""
    start(scene, "time.sleep(0.2); sys.exit(5)")
    scene.close()
    scene.daemon.send(signum)
    assert scene.daemon.wait() == 5
    assert list(scene.states("SELECT v FROM t ORDER BY n").values())[-1] == ["up", int(signum)]
    assert len(scene.daemon.found("app_signalled")) == 1


def test_a_second_signal_kills(scene: Scene) -> None:
    """An application that will not stop is killed by the second signal; what it had committed is stored."""
    start(scene, "pass")
    scene.daemon.send(signal.SIGTERM)
    wait_until(lambda: scene.rows("SELECT v FROM t ORDER BY n") == ["up", int(signal.SIGTERM)])
    scene.close()
    scene.daemon.send(signal.SIGINT)
    assert scene.daemon.wait() == 128 + signal.SIGKILL
    assert list(scene.states("SELECT v FROM t ORDER BY n").values())[-1][:2] == ["up", int(signal.SIGTERM)]
    assert scene.daemon.found("epoch_ended")


def test_stop_timeout_kills(scene: Scene) -> None:
    """An application that does not stop within stop_timeout is killed, and what it committed is stored."""
    scene.daemon.environment["REPLICAD_STOP_TIMEOUT"] = "200ms"
    start(scene, "pass")
    scene.close()
    assert scene.daemon.stop() == 128 + signal.SIGKILL
    assert list(scene.states("SELECT v FROM t ORDER BY n").values())[-1] == ["up", int(signal.SIGTERM)]


def test_no_process_is_left(scene: Scene) -> None:
    """What the application left running in the background has ended when replicad has: it could still write."""
    scene.create()
    note = scene.folder / "background"
    scene.daemon.launch(["sh", "-c", f"sleep 100 & echo $! > {note}; exit 2"])
    assert scene.daemon.wait() == 2
    assert has_ended(int(note.read_text()))


# --- before the application -------------------------------------------------------------------------


def test_a_signal_while_the_bucket_is_waited_for(remote: Scene, proxy: FaultProxy) -> None:
    """SIGTERM ends the wait for a bucket at once; the application was not started."""
    proxy.refuse = True
    remote.daemon.launch(["true"])
    remote.daemon.until("store_unreachable")
    assert remote.daemon.stop() == 143
    assert not remote.daemon.found("app_started")
    assert remote.daemon.found("stopped")


def test_a_signal_during_restore(remote: Scene, proxy: FaultProxy) -> None:
    """A signal during the restore leaves nothing of it on the disk, and the next start does it all."""
    remote.create()
    remote.insert(*range(10), size_bytes=3000)
    remote.close()
    remote.daemon.launch(["true"])
    assert remote.daemon.wait() == 0
    remote.lose_disk()
    rule = Rule(method="GET", path="/chunks/", cut=Cut.DEAF)
    proxy.rules.append(rule)
    remote.daemon.launch(["true"])
    wait_until(lambda: rule.matched)
    remote.daemon.send(signal.SIGINT)
    assert remote.daemon.wait() == 128 + signal.SIGINT
    assert [file.name for file in remote.disk.iterdir()] == ["app.db-replicad.lock"]
    assert not remote.daemon.found("app_started")
    proxy.rules.clear()
    remote.daemon.launch(["true"])
    assert remote.daemon.wait() == 0
    assert remote.rows() == list(range(10))


def test_a_signal_during_a_hook(scene: Scene) -> None:
    """SIGTERM during a hook ends the hook and all it started, and the application is not; its commits are stored."""
    scene.create()
    commit = (
        "import sqlite3, sys; sqlite3.connect(sys.argv[1], isolation_level=None).execute('insert into t values (1, 0)')"
    )
    note = scene.folder / "pid"
    scene.daemon.environment["REPLICAD_BEFORE_START"] = (
        f"{shlex.join([sys.executable, '-S', '-c', commit, str(scene.database)])}; sleep 100 & echo $! > {note}; wait"
    )
    scene.daemon.launch(["true"])
    pid = int(wait_until(lambda: note.exists() and note.read_text(), 30))
    assert scene.daemon.stop() == 143
    assert not scene.daemon.found("app_started")
    assert has_ended(pid)
    assert list(scene.states().values())[-1] == [1]


def test_a_signal_during_the_first_snapshot(remote: Scene, proxy: FaultProxy) -> None:
    """SIGTERM while the first snapshot is being sent waits for it: without it nothing could be restored."""
    remote.create()
    rule = Rule(method="PUT", path="/chunks/", latency_seconds=1.0, times=1)
    proxy.rules.append(rule)
    remote.daemon.start(["sleep", "60"])
    wait_until(lambda: rule.matched)
    remote.insert(1)
    remote.close()
    assert not remote.keys("snapshot")
    assert remote.daemon.stop() == 143
    assert list(remote.states().values())[-1] == [1]
    assert remote.daemon.found("epoch_ended")


# --- with a bucket that does not answer ---------------------------------------------------------------


@pytest.mark.parametrize("fault", ["refused", "hanging"])
def test_a_signal_with_a_dead_bucket(remote: Scene, proxy: FaultProxy, fault: str) -> None:
    """With a dead bucket a run still ends within stop_timeout and flush_timeout, with status 75 and nothing lost."""
    remote.create()
    remote.daemon.environment |= {"REPLICAD_FLUSH_TIMEOUT": "500ms", "REPLICAD_STOP_TIMEOUT": "1s"}
    remote.daemon.start(["sleep", "60"])
    remote.daemon.sync()
    proxy.rules.append(Rule(cut=Cut.BEFORE if fault == "refused" else Cut.DEAF))
    remote.insert(1)
    remote.close()
    began = time.monotonic()
    assert remote.daemon.stop() == 75
    assert time.monotonic() - began < 10
    proxy.rules.clear()
    remote.daemon.launch(["true"])
    assert remote.daemon.wait() == 0
    assert list(remote.states().values())[-1] == [1]
