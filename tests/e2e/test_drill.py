"""The drill of a running daemon: in a child of its own, against real objects that are really broken."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from replicad.host.processes import list_processes
from replicad.layout import parse_chunk, parse_manifest, parse_segment, parse_start
from tests.support.moto_server import CREDENTIALS
from tests.support.scene import Scene
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.moto_server import MotoServer

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
PARSERS: dict[str, Callable[[str], object]] = {
    "chunk": parse_chunk,
    "manifest": parse_manifest,
    "segment": parse_segment,
    "start": parse_start,
}


def flipped(body: bytes, at: int) -> bytes:
    """Return the body with one bit turned over."""
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


FAULTS: dict[str, Callable[[bytes], bytes | None]] = {
    "missing": lambda _: None,
    "truncated": lambda body: body[: len(body) // 2],
    "one bit flipped": lambda body: flipped(body, 0 if body.startswith(b"{") else len(body) // 2),
    "other bytes": lambda _: b"an object of nobody's",
    "zero bytes": lambda _: b"",
}


def begin(scene: Scene, **settings: str) -> None:
    """Start a daemon that drills every second, with a snapshot that a restore needs."""
    scene.create()
    scene.insert(*range(50), size_bytes=20_000)
    scene.daemon.environment |= {f"REPLICAD_{name.upper()}": text for name, text in settings.items()}
    scene.daemon.environment.setdefault("REPLICAD_DRILL_INTERVAL", "1s")
    scene.daemon.start()
    scene.daemon.until("snapshot_stored")
    scene.insert(100)
    scene.daemon.sync()


def drill_folders(scene: Scene) -> list[Path]:
    """Return the temporary folders of drills beside the database."""
    return list(scene.disk.glob(".app.db.replicad-drill-*"))


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started and that run."""
    return [entry.pid for entry in list_processes() if entry.parent == pid and not entry.ended]


def test_a_drill_that_passes(scene: Scene) -> None:
    """The daemon drills by itself; status shows it; nothing of it is left; it goes on after a restart from there."""
    begin(scene, assertions="SELECT count(*) = 51 FROM t; SELECT 1")
    passed = scene.daemon.until("drill_passed")
    assert passed["txid"] == scene.daemon.status()["durable_txid"]
    drill = wait_until(lambda: scene.daemon.status()["drill"])
    assert drill["result"] == "passed"
    assert 0 < drill["rto_seconds"] <= drill["seconds"]
    assert drill_folders(scene) == []
    assert scene.daemon.stop() == 0
    scene.daemon.start()
    assert scene.daemon.status()["drill"] == drill
    assert scene.daemon.stop() == 0


def test_an_idle_database_is_drilled_once(scene: Scene) -> None:
    """Behind a drill that passed the daemon makes no other one until something is stored."""
    begin(scene, drill_interval="200ms")
    scene.daemon.until("drill_passed")
    at = scene.daemon.status()["drill"]["at"]
    scene.daemon.request("GET", "/status")
    wait_until(lambda: not children_of(scene.daemon.pid))
    assert scene.daemon.status()["drill"]["at"] == at
    assert len(scene.daemon.found("drill_passed")) == 1
    scene.insert(101)
    scene.daemon.until("drill_passed", count=2)


def spoil(scene: Scene, kind: str, fault: str) -> None:
    """Break every object of a kind in the bucket, behind the daemon's back."""
    for key, body in scene.objects().items():
        if PARSERS[kind](key):
            scene.replace_object(key, FAULTS[fault](body))


def heal(scene: Scene) -> None:
    """Wait until the daemon has found and healed what is broken; then lose the disk, and have everything back."""
    scene.insert(200)  # else there is nothing to drill for
    found = scene.daemon.until("damage_found")
    assert found["level"] == "error"
    scene.daemon.until("snapshot_stored", reason="damage")
    drills = len(scene.daemon.found("drill_passed"))
    scene.daemon.until("drill_passed", count=max(2, drills))
    scene.daemon.sync()
    rows = scene.rows()
    scene.close()
    assert scene.daemon.stop() == 0
    scene.lose_disk()
    scene.daemon.start()
    assert scene.rows() == rows


EACH_ONCE = {
    ("chunk", "one bit flipped"),
    ("chunk", "zero bytes"),
    ("manifest", "truncated"),
    ("segment", "missing"),
    ("start", "other bytes"),
}
"""Every kind of object and every fault; what a reader makes of all the others is proven where it reads."""


def soak_unless(kept: bool) -> tuple[pytest.MarkDecorator, ...]:  # noqa: FBT001 - what its name asks
    """Return the marks of a case that is as good as others for every day."""
    return () if kept else (pytest.mark.soak,)


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        pytest.param(kind, fault, marks=soak_unless((kind, fault) in EACH_ONCE))
        for fault, kind in itertools.product(FAULTS, PARSERS)
    ],
)
def test_what_is_broken_is_healed(scene: Scene, kind: str, fault: str) -> None:
    """Every kind of object, broken in every way, is found by the drill, told, and healed by a fresh snapshot."""
    begin(scene, drill_interval="300ms")
    scene.daemon.until("drill_passed")
    spoil(scene, kind, fault)
    heal(scene)


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("chunk", "one bit flipped"),
        pytest.param("segment", "missing", marks=pytest.mark.soak),
        pytest.param("manifest", "zero bytes", marks=pytest.mark.soak),
    ],
)
def test_what_is_broken_in_s3_is_healed(tmp_path: Path, moto: MotoServer, kind: str, fault: str) -> None:
    """The same over S3."""
    with Scene(tmp_path, server=moto) as scene:
        scene.daemon.environment |= CREDENTIALS
        begin(scene, drill_interval="300ms")
        scene.daemon.until("drill_passed")
        ended = scene.program("verify", "--level", "bodies", "--json")
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert json.loads(ended.stdout)["databases"][0]["not_yet_uploaded"] is not None  # the daemon was asked
        spoil(scene, kind, fault)
        if kind == "chunk":  # a listing cannot know of a flipped bit
            assert scene.program("verify").returncode == 0
        assert scene.program("verify", "--level", "bodies").returncode == 2
        heal(scene)


def test_the_child_shows_no_secret_and_steps_back(tmp_path: Path, moto: MotoServer) -> None:
    """A drill runs at the lowest priority; its command line holds neither settings nor credentials."""
    with Scene(tmp_path, server=moto) as scene:
        scene.daemon.environment["REPLICAD_S3_ACCESS_KEY_ID"] = "an-access-key"
        scene.daemon.environment["REPLICAD_S3_SECRET_ACCESS_KEY"] = "a-secret-key"  # noqa: S105 - which the test looks for
        begin(scene, assertions=ENDLESS)
        (folder,) = wait_until(lambda: drill_folders(scene))
        wait_until((folder / "restored.db").exists)
        (child,) = children_of(scene.daemon.pid)
        assert os.getpriority(os.PRIO_PROCESS, child) == 19
        command = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        assert b"secret" not in b"".join(command)
        assert command[1:-1] == [b"-m", b"replicad", b"verify", b"--level", b"drill", b"--attached", b"--json"]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_child_ends_with_the_daemon(scene: Scene, how: signal.Signals) -> None:
    """Whether the daemon is stopped in order or killed in the middle of a drill, the child ends and leaves nothing."""
    begin(scene, assertions=ENDLESS)
    (folder,) = wait_until(lambda: drill_folders(scene))
    wait_until((folder / "restored.db").exists)
    (child,) = children_of(scene.daemon.pid)
    scene.daemon.send(how)
    assert scene.daemon.wait() == (0 if how is signal.SIGTERM else -signal.SIGKILL)
    wait_until(lambda: child not in {entry.pid for entry in list_processes() if not entry.ended})
    wait_until(lambda: not drill_folders(scene))


def test_what_a_killed_drill_leaves_is_removed_at_the_next_start(scene: Scene) -> None:
    """A folder that nobody could remove any more, because both were killed, is gone when the daemon starts again."""
    begin(scene, assertions=ENDLESS)
    (folder,) = wait_until(lambda: drill_folders(scene))
    wait_until((folder / "restored.db").exists)
    (child,) = children_of(scene.daemon.pid)
    os.kill(child, signal.SIGSTOP)
    scene.daemon.kill()
    os.kill(child, signal.SIGKILL)
    assert drill_folders(scene) == [folder]
    scene.daemon.environment["REPLICAD_DRILL_INTERVAL"] = "365d"
    scene.daemon.start()
    scene.daemon.until("drill_left_behind")
    assert drill_folders(scene) == []


def test_a_drill_that_takes_too_long(scene: Scene) -> None:
    """A drill that is not done within drill_timeout is ended, told, and tried again later; nothing is left of it."""
    begin(scene, assertions=ENDLESS, drill_timeout="3s")
    put_off = scene.daemon.until("drill_put_off")
    assert put_off["reason"] == "Timeout"
    assert scene.daemon.status()["drill"]["result"] == "put off"
    wait_until(lambda: not drill_folders(scene))


def test_a_folder_that_cannot_be_used(scene: Scene) -> None:
    """Where a drill finds no place to restore to it says so, and the daemon goes on."""
    (scene.folder / "file").write_text("in the way")
    begin(scene, drill_folder=str(scene.folder / "file"))
    put_off = scene.daemon.until("drill_put_off")
    assert put_off["reason"] == "FileUnusable"
    scene.insert(300)
    scene.daemon.sync()


def test_an_assertion_that_does_not_hold(scene: Scene) -> None:
    """A false assertion is told; no snapshot is taken because of it."""
    begin(scene, assertions="SELECT count(*) < 10 FROM t")
    failed = scene.daemon.until("drill_failed")
    assert "count(*) < 10" in str(failed["problem"])
    assert scene.daemon.status()["drill"]["result"] == "failed"
    assert not scene.daemon.found("damage_found")


def test_flags_and_a_file_reach_the_child(scene: Scene) -> None:
    """However the daemon was told its settings, the child has the same: by flags, by a file with several databases."""
    scene.create()
    scene.insert(1)
    config = scene.folder / "replicad.yml"
    config.write_text(
        f"replica: {scene.replica}\n"
        f"databases: [{{path: {scene.database}, name: notes}}, {{path: {scene.disk}/other.db}}]\n"
        "assertions: [SELECT count(*) > 0 FROM t]\n"
    )
    for name in ("DATABASE", "REPLICA"):
        del scene.daemon.environment[f"REPLICAD_{name}"]
    scene.daemon.start(
        arguments=("-m", "replicad", "run", "--config", str(config), "--drill-interval", "1s", "--sync-interval", "0s")
    )
    scene.daemon.until("drill_passed", database="notes")


def ended_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Return whether a process ends within a time."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def test_no_false_alarm_while_everything_goes_on(scene: Scene) -> None:
    """A sound replica is never called anything else while it is written to and snapshots are taken all the time."""
    begin(scene, drill_interval="100ms", snapshot_interval="1s", sync_interval="0s", snapshot_log_ratio="0.1")
    number = 1000
    for level in ("listing", "bodies", "drill", "listing"):
        verifying = subprocess.Popen(
            [sys.executable, "-m", "replicad", "verify", "--level", level, "--json"],
            env=scene.daemon.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        while not ended_within(verifying, 0.01):
            scene.insert(number, size_bytes=5000)
            number += 1
            if number % 10 == 0:
                scene.daemon.snapshot()
        assert verifying.stdout is not None
        with verifying.stdout as output:
            answer = json.loads(output.read())
        assert verifying.returncode == 0, answer
        assert answer["state"] in {"OK", "NOT YET UPLOADED"}
    scene.daemon.until("drill_passed")
    assert not scene.daemon.found("damage_found")
    assert not scene.daemon.found("drill_failed")
    assert len(scene.daemon.found("snapshot_stored")) > 5
