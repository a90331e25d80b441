from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from replicad.layout import parse_chunk, parse_segment
from replicad.restore.drill_folder import DrillFolder
from tests.support.waiting import wait_until
from tests.unit.cli.conftest import Running, run_program, running

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.cli.conftest import Command

LATER_TOKEN = base64.b64encode(b'{"version": 2, "database_id": "", "after": "", "read_bytes": 0}').decode()


@pytest.fixture
def copy(history: Running, tmp_path: Path) -> Running:
    """Return a replica with seven transactions that may be broken; its replicad has ended."""
    shutil.copytree(history.folder, tmp_path / "h", ignore=shutil.ignore_patterns("*.sock"))
    return Running(folder=tmp_path / "h", process=history.process)


def objects(found: Running) -> dict[str, Path]:
    """Return the files of the replica by their key."""
    root = found.folder / "replica" / "app.db"
    return {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}


def test_a_sound_replica(copy: Running) -> None:
    """Status 0 and OK at every level, for people and as JSON."""
    for level in ("listing", "bodies", "drill"):
        ended = copy.command("verify", "--level", level)
        assert ended.code == 0, ended.err
        assert ended.out.startswith("app.db: OK\n")
        answer = copy.answer("verify", "--level", level)
        assert answer["state"] == "OK"
        (one,) = answer["databases"]
        assert (one["state"], one["level"], one["passed"], one["findings"]) == ("OK", level, True, [])
    assert "Drill passed" in ended.out
    assert one["drill"]["txid"] == 7
    assert 0 < one["drill"]["rto_seconds"] <= one["drill"]["seconds"]
    assert {path.name for path in copy.folder.iterdir() if "drill" in path.name} == set()


def test_a_missing_segment(copy: Running) -> None:
    """Status 2 and LOST, with the instants that are gone."""
    segments = sorted(key for key in objects(copy) if parse_segment(key))
    objects(copy)[segments[-1]].unlink()
    ended = copy.command("verify")
    assert ended.code == 2
    assert ended.out.startswith("app.db: LOST\n")
    assert "Cannot be restored: TXID 7" in ended.out
    answer = json.loads(copy.command("verify", "--json").out)["databases"][0]
    assert answer["lost_transactions"] == 1
    assert [(one["fault"], one["kind"]) for one in answer["findings"]] == [("missing", "segment")]


def test_a_damaged_chunk(copy: Running) -> None:
    """Status 2 and DAMAGED, with the object; the listing cannot know, bodies and drill do."""
    files = objects(copy)
    for key in files:
        if parse_chunk(key):
            body = bytearray(files[key].read_bytes())
            body[len(body) // 2] ^= 1
            files[key].write_bytes(body)
    assert copy.command("verify").code == 0
    for level in ("bodies", "drill"):
        ended = copy.command("verify", "--level", level, "--json")
        assert ended.code == 2, ended.err
        answer = json.loads(ended.out)["databases"][0]
        assert answer["state"] == "DAMAGED"
        assert {one["kind"] for one in answer["findings"]} == {"chunk"}
        assert answer["lost_transactions"] > 0
    assert answer["drill"]["restored"] is False


def test_no_backup_and_no_store(tmp_path: Path, replicad: Command) -> None:
    """An empty replica is 10, a store that does not answer 13."""
    flags = ("--name", "app.db")
    assert replicad("verify", *flags, "--replica", f"file://{tmp_path}/empty").code == 10
    away = ("--replica", "s3://bucket?endpoint=http://127.0.0.1:1", "--retry-timeout", "0s")
    keys = {"REPLICAD_S3_ACCESS_KEY_ID": "an id", "REPLICAD_S3_SECRET_ACCESS_KEY": "a key"}
    assert replicad("verify", *flags, *away, **keys).code == 13


@pytest.mark.parametrize(
    "arguments",
    [
        ["--level", "bodies", "--share", "10"],
        ["--level", "bodies", "--share", "0%"],
        ["--level", "bodies", "--share", "101%"],
        ["--level", "bodies", "--max-bytes", "0"],
        ["--level", "bodies", "--max-time", "soon"],
        ["--level", "bodies", "--resume", "nonsense"],
        ["--level", "bodies", "--resume", LATER_TOKEN],
        ["--share", "10%"],
        ["--level", "drill", "--resume", "x"],
        ["--level", "everything"],
    ],
)
def test_impossible_flags(copy: Running, replicad: Command, arguments: list[str]) -> None:
    """A limit, a token or a level that cannot be is 64."""
    assert replicad("verify", *copy.flags, *arguments).code == 64


def test_limited_runs_go_on_where_the_last_one_stopped(copy: Running) -> None:
    """Five runs of 20% read everything once; what is kept between them stands beside the database."""
    kept = copy.folder / "app.db-replicad-verify"
    read, runs = 0, 0
    while kept.exists() or not runs:
        answer = copy.answer("verify", "--level", "bodies", "--share", "20%")["databases"][0]
        read, runs = read + answer["bodies"], runs + 1
    assert read == sum(not key.startswith("handover/") for key in objects(copy))
    assert 4 <= runs <= 12


def test_a_token_goes_on_on_another_machine(copy: Running, tmp_path: Path, replicad: Command) -> None:
    """Without the database on this disk nothing is kept; the token that a run prints does the same."""
    flags = ("--name", "app.db", "--replica", copy.flags[3], "--level", "bodies", "--max-bytes", "1KiB")
    ended = replicad("verify", *flags)
    token = ended.out.rpartition("--resume ")[2].split()[0]
    first = json.loads(replicad("verify", *flags, "--json").out)["databases"][0]
    assert first["resume"] == token
    second = json.loads(replicad("verify", *flags, "--resume", token, "--json").out)["databases"][0]
    assert second["pass_bytes"] == first["body_bytes"] + second["body_bytes"]
    assert list(tmp_path.glob("app.db*")) == []


def test_what_waits_while_replicad_is_down(tmp_path: Path) -> None:
    """After a kill, the WAL and the state file tell what the store does not have yet."""
    with running(tmp_path) as found:
        found.write("INSERT INTO t VALUES (1)")
        found.answer("sync")
        reader = sqlite3.connect(found.path)
        with closing(reader):  # keeps the WAL from being taken away by the last one who closes
            reader.execute("SELECT * FROM t").fetchall()
            found.process.kill()
            found.process.wait()
            assert found.answer("verify")["state"] == "OK"
            found.write("INSERT INTO t VALUES (2)", "INSERT INTO t VALUES (3)")
            answer = found.answer("verify")
            assert answer["state"] == "NOT YET UPLOADED"
            assert answer["databases"][0]["not_yet_uploaded"]["transactions"] == 2
            assert answer["databases"][0]["not_yet_uploaded"]["bytes"] >= 2 * 4096
            assert "Not yet uploaded: 2 transactions" in found.command("verify").out


def test_what_was_reported_durable_is_missed(tmp_path: Path) -> None:
    """A tail of the log that somebody deleted leaves no gap in the listing; the running replicad knows of it."""
    with running(tmp_path) as found:
        for number in range(3):
            found.write(f"INSERT INTO t VALUES ({number})")
            found.answer("sync")
        assert found.answer("verify")["state"] == "OK"
        shutil.copytree(found.folder / "replica", found.folder / "behind")
        found.write("INSERT INTO t VALUES (9)")
        found.answer("sync")
        behind = ("--database", str(found.path), "--replica", f"file://{found.folder}/behind")
        assert run_program("verify", *behind).code == 0  # a copy that is behind has lost nothing
        files = objects(found)
        last = max(key for key in files if parse_segment(key))
        files[last].unlink()
        ended = found.command("verify")
        assert ended.code == 2
        assert "LOST" in ended.out
        as_mirror = (*behind, "--mirrors", f"file://{found.folder}/behind")
        for beat in range(2):  # while the daemon answers, and when it does not: of a mirror it is known that it may lag
            ended = run_program("verify", *as_mirror)
            assert ended.code == 0, ended.err
            assert "Not yet uploaded: 1 transactions" in ended.out, beat
            found.process.kill()
            found.process.wait()
        assert "LOST" in run_program("verify", *behind).out  # nothing says that it is not the replica itself


def test_assertions(copy: Running) -> None:
    """Assertions that hold pass the drill; one that does not is 2, and is named, though the replica is OK."""
    assert copy.command("verify", "--level", "drill", "--assertions", "SELECT count(*) = 6 FROM t").code == 0
    ended = copy.command("verify", "--level", "drill", "--assertions", "SELECT 1; SELECT count(*) > 6 FROM t")
    assert ended.code == 2
    assert "Drill FAILED" in ended.out
    assert "Not true: SELECT count(*) > 6 FROM t" in ended.out
    assert ended.out.startswith("app.db: OK")


def test_several_databases(copy: Running, tmp_path: Path) -> None:
    """Every database that is configured is looked at; one without a backup does not hide another that is damaged."""
    file = tmp_path / "replicad.yml"
    file.write_text(
        f"replica: {copy.flags[3]}\ndatabases: [{copy.path}, {tmp_path}/other.db]\ncontrol_socket: {tmp_path}/s\n"
    )
    ended = run_program("verify", "--config", str(file), "--json")
    answer = json.loads(ended.out)
    assert ended.code == 10
    assert [one["state"] for one in answer["databases"]] == ["OK", "ERROR"]
    objects(copy)[max(key for key in objects(copy) if parse_segment(key))].unlink()
    ended = run_program("verify", "--config", str(file))
    assert ended.code == 2
    assert "app.db: LOST" in ended.out
    assert "other.db: There is no backup" in ended.out


@pytest.mark.parametrize("how", ["standard input ends", "SIGTERM"])
def test_an_attached_drill_ends_with_whoever_started_it(copy: Running, tmp_path: Path, how: str) -> None:
    """A drill that is told to is of the lowest priority, and ends and leaves nothing when its standard input does."""
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    drill = ("verify", *copy.flags, "--level", "drill", "--attached", "--json")
    process = subprocess.Popen(
        [sys.executable, "-m", "replicad", *drill, "--drill-folder", f"{tmp_path}/drill", "--assertions", endless],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin is not None
    try:
        wait_until(lambda: list((tmp_path / "drill").glob(".app.db.replicad-drill-*/restored.db")), 30)
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == 19
        began = time.monotonic()
        if how == "SIGTERM":
            process.send_signal(signal.SIGTERM)
        else:
            process.stdin.close()
        assert process.wait(20) == 130
        assert time.monotonic() - began < 10
        assert list((tmp_path / "drill").iterdir()) == []
    finally:
        process.kill()
        process.wait()
        process.stdin.close()


def test_what_a_killed_drill_leaves_behind_is_removed(copy: Running, tmp_path: Path) -> None:
    """The next drill of the database removes the folder of one that was killed, and leaves one that goes on alone."""
    going_on = DrillFolder(tmp_path / "drill", "app.db")
    going_on.take()
    left = tmp_path / "drill" / ".app.db.replicad-drill-left"
    left.mkdir()
    (left / "restored.db").write_bytes(bytes(100))
    other = tmp_path / "drill" / ".other.db.replicad-drill-left"
    other.mkdir()
    assert copy.command("verify", "--level", "drill", "--drill-folder", str(tmp_path / "drill")).code == 0
    assert not left.exists()
    assert going_on.path.exists()
    assert other.exists()
    going_on.remove()
