from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.cli.conftest import Command, Running


def _rows(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM t").fetchone()
        return int(count)


def test_the_last_state(history: Running, tmp_path: Path) -> None:
    """Without a target the last transaction is restored, and the answer says which instant that was."""
    target = tmp_path / "out.db"
    ended = history.command("restore", "--output", str(target))
    assert ended.code == 0, ended.err
    newest = history.answer("log")["entries"][0]
    assert _rows(target) == newest["txid"] - 1
    assert f"TXID {newest['txid']}, committed at {newest['at']}" in ended.out
    assert "Proven equal to the source by checksum" in ended.out
    assert '"event":"restored"' in ended.err


def test_every_transaction(history: Running, tmp_path: Path, replicad: Command) -> None:
    """--txid and --at reach every transaction of the log, exactly."""
    entries = [one for one in history.answer("log")["entries"] if one["kind"] == "transaction"]
    assert len(entries) >= 6
    for entry in entries:
        for flag, value in (("--txid", str(entry["txid"])), ("--at", entry["at"])):
            target = tmp_path / f"{flag}{entry['txid']}.db"
            ended = replicad("restore", *history.flags, flag, value, "--output", str(target), "--json")
            assert ended.code == 0, ended.err
            answer = json.loads(ended.out)
            assert (answer["restored"], answer["txid"], answer["committed_at"]) == (True, entry["txid"], entry["at"])
            assert _rows(target) == entry["txid"] - 1


def test_a_dry_run_writes_nothing(history: Running, tmp_path: Path, replicad: Command) -> None:
    """--dry-run says what would be restored and fetched, also onto a file that exists, and touches nothing."""
    ended = replicad("restore", *history.flags, "--txid", "5", "--dry-run", "--json")
    answer = json.loads(ended.out)
    assert (ended.code, answer["restored"], answer["txid"]) == (0, False, 5)
    assert answer["requests"] >= 2
    assert answer["fetched_bytes"] > 0
    target = tmp_path / "out.db"
    assert replicad("restore", *history.flags, "--dry-run", "-o", str(target)).code == 0
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file(history: Running, tmp_path: Path, replicad: Command) -> None:
    """A file that is there is an error, nothing to do with --if-missing, and replaced with --force."""
    target = tmp_path / "out.db"
    target.write_bytes(b"mine")
    refused = replicad("restore", *history.flags, "-o", str(target))
    assert refused.code == 64
    assert "--force" in refused.err
    skipped = replicad("restore", *history.flags, "-o", str(target), "--if-missing", "--json")
    assert (skipped.code, json.loads(skipped.out)["reason"]) == (0, "exists")
    assert target.read_bytes() == b"mine"
    assert replicad("restore", *history.flags, "-o", str(target), "--force").code == 0
    assert _rows(target) == 6


def test_no_backup(tmp_path: Path, replicad: Command) -> None:
    """An empty store is 10, and with --if-replica-exists nothing to do; a store that fails is neither."""
    flags = ("--replica", f"file://{tmp_path}/empty", "-o", str(tmp_path / "out.db"), "--name", "app.db")
    ended = replicad("restore", *flags)
    assert ended.code == 10
    assert "There is no backup" in ended.err
    skipped = replicad("restore", *flags, "--if-replica-exists", "--json")
    assert (skipped.code, json.loads(skipped.out)["reason"]) == (0, "no backup")
    away = ("--replica", "s3://bucket?endpoint=http://127.0.0.1:1", "--retry-timeout", "0s", "--if-replica-exists")
    keys = {"REPLICAD_S3_ACCESS_KEY_ID": "an id", "REPLICAD_S3_SECRET_ACCESS_KEY": "a key"}
    assert replicad("restore", *away, "-o", str(tmp_path / "out.db"), "--name", "app.db", **keys).code == 13
    assert not (tmp_path / "out.db").exists()


@pytest.mark.parametrize(
    ("arguments", "refused"),
    [
        (["--txid", "99"], (14, "TXID 99")),
        (["--at", "2001-01-01"], (14, "2001-01-01T00:00:00.000Z")),
        (["--at", "sometime"], (64, "--at: expected ISO 8601")),
        (["--at", "2001-01-01", "--txid", "1"], (64, "either --at or --txid")),
        (["--force", "--if-missing"], (64, "either --force or --if-missing")),
        (["--epoch", "9"], (64, "--epoch")),
        (["--txid", "0"], (64, "--txid")),
    ],
)
def test_what_cannot_be_restored(
    history: Running, tmp_path: Path, replicad: Command, arguments: list[str], refused: tuple[int, str]
) -> None:
    """A target outside the window is 14, an impossible command line 64, and nothing is written."""
    ended = replicad("restore", *history.flags, "-o", str(tmp_path / "out.db"), *arguments)
    assert ended.code == refused[0]
    assert refused[1] in ended.err
    assert list(tmp_path.iterdir()) == []


def test_a_later_time_is_the_last_state(history: Running, tmp_path: Path, replicad: Command) -> None:
    """A time behind the last commit of an idle database means its last state."""
    ended = replicad("restore", *history.flags, "-o", str(tmp_path / "out.db"), "--at", "0 seconds ago", "--json")
    assert (ended.code, json.loads(ended.out)["txid"]) == (0, 7)


def test_to_standard_output(history: Running, tmp_path: Path) -> None:
    """`-o -` writes the proven file and nothing else to standard output; what it says goes to standard error."""
    target = tmp_path / "out.db"
    command = [sys.executable, "-m", "replicad", "restore", *history.flags, "--txid", "4", "-o", "-", "--json"]
    with target.open("wb") as out:
        ended = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, check=True, text=True, timeout=60)
    assert _rows(target) == 3
    assert '"txid": 4' in ended.stderr


def test_a_database_known_by_its_name_needs_an_output(history: Running, tmp_path: Path, replicad: Command) -> None:
    """With a name instead of a path, the output must be said."""
    replica = history.flags[2:]
    assert replicad("restore", *replica, "--name", "app.db").code == 64
    assert replicad("restore", *replica, "--name", "app.db", "-o", str(tmp_path / "out.db")).code == 0
    assert _rows(tmp_path / "out.db") == 6
