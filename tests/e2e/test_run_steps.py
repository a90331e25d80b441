"""`replicad run` in order: what happens before the application, beside it and after it, and the exit statuses."""

from __future__ import annotations

import json
import os
import shlex
import signal
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.fault_proxy import Rule
from tests.support.scene import kind, rows_of
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.support.fault_proxy import FaultProxy
    from tests.support.scene import Scene

PYTHON = [sys.executable, "-S", "-c"]
OPEN = "import os, signal, sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None); "


def app(scene: Scene, script: str) -> list[str]:
    """Return a command that runs Python with a connection to the database as `db`."""
    return [*PYTHON, OPEN + script, str(scene.database)]


def hook(scene: Scene, script: str) -> str:
    """Return the same as a shell command."""
    return shlex.join(app(scene, script))


# --- the order of steps -----------------------------------------------------------------------------


def test_the_steps_come_in_order(scene: Scene) -> None:
    """Restore, on_first_start when there is neither backup nor file, before_start, application: at each start."""
    trace = scene.folder / "trace"
    count = "db.execute('select count(*) from t').fetchone()[0]"
    say = f"print({{}}, {count}, os.path.exists({str(scene.daemon.ready_file)!r}), file=open({str(trace)!r}, 'a'))"
    scene.daemon.environment["REPLICAD_ON_FIRST_START"] = hook(
        scene,
        "db.execute('pragma journal_mode=wal'); db.execute('create table t (n integer primary key, v)'); "
        + say.format("'first'"),
    )
    scene.daemon.environment["REPLICAD_BEFORE_START"] = hook(
        scene, say.format("'before'") + "; db.execute('insert into t (v) values (?)', ('hook',))"
    )
    command = app(scene, say.format("'app'") + "; db.execute('insert into t (v) values (?)', ('app',)); sys.exit(3)")
    for disk in ("empty, and no backup", "the same", "empty"):
        if disk == "empty":
            scene.lose_disk()
        scene.daemon.launch(command)
        assert scene.daemon.wait() == 3
    lines = [line.split() for line in trace.read_text().splitlines()]
    assert [(step, int(rows)) for step, rows, _ in lines] == [
        ("first", 0),
        ("before", 0),
        ("app", 1),
        ("before", 2),
        ("app", 3),
        ("before", 4),
        ("app", 5),
    ]
    assert all(ready == "False" for step, _, ready in lines if step != "app"), "ready while a hook still ran"
    assert scene.rows("SELECT v FROM t ORDER BY n") == ["hook", "app"] * 3


def test_a_file_that_is_there_is_no_first_start(scene: Scene) -> None:
    """A database that exists already is not seeded, though there is no backup of it yet."""
    scene.create()
    scene.daemon.environment["REPLICAD_ON_FIRST_START"] = "exit 9"
    scene.daemon.launch(["true"])
    assert scene.daemon.wait() == 0
    assert scene.check_newest() == 1


def test_the_log_says_how_a_run_began_and_ended(scene: Scene) -> None:
    """A first start is said to be one, and none other is; from the stop signal on each step is a line of the log.

    A log that ends without `stopped` is how one sees that the platform killed before the end (docs/failure-model.md).
    """
    order = ["first_started", "ready", "stopping", "app_signalled", "app_stopped", "final_flush_done", "stopped"]
    for first in (True, False):
        scene.daemon.start(app(scene, "db.execute('create table if not exists t (n)'); signal.pause()"))
        scene.daemon.until("capture_started")
        assert scene.daemon.stop() == 143
        begun = [json.loads(line)["event"] for line in scene.daemon.lines().splitlines()]
        assert [event for event in dict.fromkeys(begun) if event in order] == order[not first :]
        assert scene.daemon.found("stopping", signal="SIGTERM")
        assert scene.daemon.found("stopped", status=143)
    scene.daemon.launch(["true"])
    assert scene.daemon.wait() == 0
    assert not scene.daemon.found("stopping")
    assert scene.daemon.found("stopped", status=0)


def test_migrations_are_transactions(scene: Scene) -> None:
    """What before_start commits is stored commit by commit, not as a snapshot or a resynchronisation."""
    scene.create()
    scene.daemon.launch(["true"])
    assert scene.daemon.wait() == 0
    before = scene.keys("snapshot", "chunk")
    scene.daemon.environment["REPLICAD_BEFORE_START"] = hook(
        scene, "[db.execute('insert into t values (?, 0)', (n,)) for n in (1, 2, 3)]; db.close()"
    )
    scene.daemon.launch(["true"])
    assert scene.daemon.wait() == 0
    assert scene.keys("snapshot", "chunk") == before
    assert list(scene.states().values()) == [[], [1], [1, 2], [1, 2, 3]]


def test_a_failed_hook_stops_the_start(scene: Scene) -> None:
    """A hook that fails ends the run with a clear error before the application starts; what it committed is stored."""
    scene.create()
    scene.daemon.environment["REPLICAD_BEFORE_START"] = hook(
        scene, "db.execute('insert into t values (1, 0)'); sys.exit(9)"
    )
    started = scene.folder / "started"
    scene.daemon.launch(["touch", str(started)])
    assert scene.daemon.wait() == 1
    assert "before_start command ended with status 9" in scene.daemon.lines()
    assert not started.exists()
    assert not scene.daemon.found("ready")
    assert list(scene.states().values())[-1] == [1]


# --- exit statuses ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "status"),
    [("sys.exit(7)", 7), ("os.kill(os.getpid(), signal.SIGKILL)", 137), ("os.kill(os.getpid(), signal.SIGSEGV)", 139)],
)
def test_the_status_is_the_applications_own(scene: Scene, script: str, status: int) -> None:
    """A run ends as its application did, 128 + n for a signal, and what was committed right before it is stored.

    (#436: a child that exits before the first sync skips the final flush.) Seen to fail without `_flush_finally`.
    """
    scene.create()
    scene.daemon.environment["REPLICAD_SYNC_INTERVAL"] = "1h"
    scene.daemon.launch(app(scene, f"[db.execute('insert into t values (?, 0)', (n,)) for n in range(5)]; {script}"))
    assert scene.daemon.wait() == status
    assert list(scene.states().values())[-1] == [0, 1, 2, 3, 4]
    assert scene.daemon.found("final_flush_done")


@pytest.mark.parametrize(("command", "status"), [("no-such-program-anywhere", 127), ("not-executable", 126)])
def test_a_command_that_cannot_start(scene: Scene, command: str, status: int) -> None:
    """A command that is not there or not executable ends with a shell's statuses, and a message that names it."""
    scene.create()
    (scene.folder / "not-executable").write_text("#!/bin/sh\n")
    found = command if status == 127 else str(scene.folder / command)
    scene.daemon.launch([found])
    assert scene.daemon.wait() == status
    assert found in scene.daemon.lines()


def test_a_usage_error_is_64(scene: Scene) -> None:
    """A flag that does not exist ends with 64 before anything happens."""
    assert scene.program("run", "--no-such-flag", "--", "true").returncode == 64
    assert scene.keys() == set()


def test_two_daemons_of_one_database(scene: Scene) -> None:
    """A second daemon on the same machine ends with 11 and leaves the first one alone."""
    scene.create()
    scene.daemon.start()
    second = scene.program("run", "--", "true")
    assert second.returncode == 11
    assert "another replicad on this machine" in second.stderr
    scene.insert(1)
    assert scene.daemon.sync() == 2
    assert len(scene.keys("claim")) == 1


@pytest.mark.parametrize("there", [False, True], ids=["empty disk", "database there"])
def test_no_bucket_at_boot(remote: Scene, proxy: FaultProxy, *, there: bool) -> None:
    """A bucket that stays away for boot_timeout ends with 13: the application is not started, least of all empty."""
    if there:
        remote.create()
    started = remote.folder / "started"
    remote.daemon.environment["REPLICAD_BOOT_TIMEOUT"] = "1s"
    proxy.refuse = True
    remote.daemon.launch(["touch", str(started)])
    assert remote.daemon.wait() == 13
    assert not started.exists()
    assert remote.database.exists() is there
    assert "could not be reached" in remote.daemon.lines()
    assert not remote.daemon.ready_file.exists()


def test_a_bucket_that_comes_back_at_boot(remote: Scene, proxy: FaultProxy) -> None:
    """A bucket that is away at the start is waited for, and then restored from before the application starts."""
    remote.create()
    remote.insert(1)
    remote.close()
    remote.daemon.launch(["true"])
    assert remote.daemon.wait() == 0
    remote.lose_disk()
    proxy.refuse = True
    remote.daemon.launch(app(remote, "sys.exit(db.execute('select count(*) from t').fetchone()[0] + 40)"))
    remote.daemon.until("store_unreachable")
    proxy.refuse = False
    assert remote.daemon.wait() == 41


def test_a_final_flush_into_a_dead_bucket(remote: Scene, proxy: FaultProxy) -> None:
    """A final flush that fails ends with 75 and says what is missing; the next start on this disk sends it.

    (A failed final flush with exit status 0 is what others had.)
    """
    remote.create()
    remote.daemon.environment["REPLICAD_FLUSH_TIMEOUT"] = "1s"
    remote.daemon.launch(["true"])
    assert remote.daemon.wait() == 0
    before = remote.keys("segment")
    remote.daemon.launch(["sleep", "60"])
    remote.daemon.until("ready")
    proxy.refuse = True
    remote.insert(1, 2, 3)
    remote.close()
    remote.daemon.until("store_unreachable")
    assert remote.daemon.stop() == 75
    error = str(remote.daemon.found("final_flush_failed")[0]["error"])
    assert "3 transactions" in error
    assert str(remote.database) in error
    proxy.refuse = False
    assert remote.keys("segment") == before
    remote.daemon.launch(["true"])
    assert remote.daemon.wait() == 0
    assert list(remote.states().values())[-1] == [1, 2, 3]
    assert remote.check_newest() == 4, "single transactions, not one difference"


# --- readiness and control ---------------------------------------------------------------------------


def test_ready_when_the_application_runs(scene: Scene) -> None:
    """The ready file stands from the application's start to the end, and `replicad wait` returns when it appears."""
    scene.create()
    gate = scene.folder / "gate"
    scene.daemon.environment["REPLICAD_BEFORE_START"] = f"while [ ! -e {gate} ]; do sleep 0.01; done"
    scene.daemon.launch(["sleep", "60"])
    scene.daemon.until("capture_started")
    waiting = subprocess.Popen(
        [sys.executable, "-m", "replicad", "wait", "--timeout", "30s", "--json"],
        env=scene.daemon.environment,
        stdout=subprocess.PIPE,
    )
    not_ready = scene.program("wait", "--timeout", "100ms")
    assert not_ready.returncode == 1
    assert not scene.daemon.ready_file.exists()
    assert waiting.poll() is None
    gate.touch()
    answer, _ = waiting.communicate(timeout=30)
    assert (waiting.returncode, json.loads(answer)["ready"]) == (0, True)
    assert int(scene.daemon.ready_file.read_text()) == scene.daemon.pid
    assert scene.daemon.stop() == 128 + signal.SIGTERM  # sleep's own end
    assert not scene.daemon.ready_file.exists()


def test_the_control_socket_is_private(scene: Scene) -> None:
    """What changes state is asked over a socket that the owner alone can open, and that is gone at the end."""
    scene.create()
    scene.daemon.start()
    assert stat.S_IMODE(scene.daemon.socket.stat().st_mode) == 0o600
    assert scene.daemon.stop() == 0
    assert not scene.daemon.socket.exists()


def test_a_sidecar_waits_for_the_database(scene: Scene) -> None:
    """Without a command it runs beside the application; a database that does not exist yet is waited for."""
    scene.daemon.start()
    scene.daemon.until("database_awaited")
    assert scene.daemon.sync() == 0
    scene.create()
    scene.insert(1, 2)
    scene.daemon.until("capture_started")
    scene.daemon.sync()
    scene.insert(3)
    scene.daemon.sync()
    scene.check_newest()
    assert list(scene.states().values())[-2:] == [[1, 2], [1, 2, 3]]
    assert scene.daemon.stop() == 0
    assert [kind(key) for key in scene.keys("claim", "start", "end")].count("end") == 1


def test_a_stop_before_there_is_a_database(scene: Scene) -> None:
    """An application that never made a database ends with its status, at once; nothing is missing."""
    scene.daemon.launch(["sh", "-c", "exit 4"])
    assert scene.daemon.wait() == 4


def test_nothing_is_written_into_the_database(scene: Scene) -> None:
    """Attaching, a day's work and detaching change no page; switching to WAL changes its mark and counters alone.

    P2. In the header, bytes 18 and 19 are the journal mode; 24 to 27 and 92 to 99 are counters that SQLite writes
    with it.
    """
    scene.create("CREATE INDEX i ON t (v)", wal=False)
    scene.insert(*range(50))
    scene.close()
    before = scene.database.read_bytes()
    scene.daemon.start()
    scene.daemon.sync()
    scene.daemon.snapshot()
    assert scene.daemon.stop() == 0
    after = scene.database.read_bytes()
    changed = {at for at in range(len(before)) if before[at] != after[at]}
    assert len(after) == len(before)
    assert {18, 19} <= changed <= {18, 19, *range(24, 28), *range(92, 100)}
    scene.daemon.start()
    scene.daemon.snapshot()
    assert scene.daemon.stop() == 0
    assert scene.database.read_bytes() == after


def test_a_clean_end_leaves_a_plain_file(scene: Scene) -> None:
    """After an end in order no -wal stands beside the database that a file put in its place could be taken for.

    Seen to fail without `leave_tidy`: the old rows came back over the new file.
    """
    scene.create()
    scene.insert(1)
    scene.daemon.start()
    scene.insert(2)
    scene.close()
    assert scene.daemon.stop() == 0
    assert {file.name for file in scene.disk.iterdir()} == {"app.db", "app.db-replicad", "app.db-replicad.lock"}
    assert rows_of(scene.database) == [1, 2]


def test_a_file_that_is_no_database(scene: Scene) -> None:
    """An encrypted or foreign file at the path ends the start with an error that says so, and is left as it was."""
    scene.database.write_bytes(os.urandom(8192))
    before = scene.database.read_bytes()
    scene.daemon.launch(["true"])
    assert scene.daemon.wait() == 1
    assert "encrypted" in scene.daemon.lines()
    assert scene.database.read_bytes() == before


def test_an_s3_bucket_does_as_a_folder_does(remote: Scene, proxy: FaultProxy) -> None:
    """Over HTTP to S3: restore on an empty disk, go on, and a restore by the program to an earlier transaction."""
    del proxy
    remote.create()
    remote.daemon.start(["sleep", "60"])
    remote.insert(1, 2)
    middle = remote.daemon.sync()
    remote.insert(3)
    remote.close()
    assert remote.daemon.stop() == 143
    remote.lose_disk()
    remote.daemon.start(["sleep", "60"])
    remote.insert(4)
    assert remote.daemon.sync() == middle + 2
    assert remote.rows() == [1, 2, 3, 4]
    assert rows_of(remote.restore("--txid", str(middle))) == [1, 2]
    remote.check_newest()


def test_a_claim_that_another_made_first(remote: Scene, proxy: FaultProxy) -> None:
    """Of two instances that start at once, the one whose claim came second gets the next epoch, behind the first."""
    remote.create()
    remote.daemon.launch(["true"])
    assert remote.daemon.wait() == 0
    # The claim is held on its way until another instance has made the same one.
    other = remote.folder / "other"
    other.mkdir()
    rule = Rule(method="PUT", path="/claims/", latency_seconds=2.0, times=1)
    proxy.rules.append(rule)
    remote.daemon.launch(["true"])
    wait_until(lambda: rule.matched)
    environment = remote.daemon.environment | {
        "REPLICAD_DATABASE": str(other / "app.db"),
        "REPLICAD_CONTROL_SOCKET": str(other / "control.sock"),
        "REPLICAD_READY_FILE": str(other / "ready"),
    }
    subprocess.run(
        [sys.executable, "-m", "replicad", "run", "--", "true"],
        env=environment,
        check=True,
        timeout=60,
        stderr=subprocess.DEVNULL,
    )
    assert remote.daemon.wait() == 0
    assert remote.daemon.found("claim_lost", epoch=2)
    assert remote.daemon.found("claim_created", epoch=3)
