from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from replicad.host.lockfile import LockFile
from tests.unit.cli.conftest import running

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Command, Running

GOLDEN = Path(__file__).parents[2] / "golden" / "litestream"


def make(path: Path, *numbers: int) -> Path:
    """Make a database with a row for each number."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE t (n)")
        for number in numbers:
            connection.execute("INSERT INTO t VALUES (?)", (number,))
    return path


def flags_of(folder: Path) -> tuple[str, ...]:
    """Return what tells a command of a replica in a folder."""
    return ("--replica", f"file://{folder}/replica", "--database", str(folder / "app.db"))


def test_a_file_becomes_the_newest_state(history: Running, tmp_path: Path, replicad: Command) -> None:
    """Behind a history that is kept; the log shows it, a restore gives it, and every earlier state as before."""
    shutil.copytree(history.folder / "replica", tmp_path / "replica")
    flags = ("--replica", f"file://{tmp_path}/replica", "--name", "app.db")
    before = json.loads(replicad("log", *flags, "--json").out)
    path = make(tmp_path / "new.db", 41, 42)
    ended = replicad("push", str(path), *flags, "--json")
    assert ended.code == 0, ended.err
    answer = json.loads(ended.out)
    assert (answer["pushed"], answer["previous_txid"]) == (True, before["last_txid"])
    assert answer["txid"] == before["last_txid"] + 1
    assert answer["epoch_ended"]
    after = json.loads(replicad("log", *flags, "--json").out)
    newest, *rest = after["entries"]
    assert (newest["kind"], newest["txid"], newest["note"]) == ("snapshot", answer["txid"], "pushed")
    assert newest["at"] == answer["committed_at"]
    assert rest == before["entries"]
    for entry in (newest, next(one for one in rest if one["kind"] == "transaction")):
        found = json.loads(replicad("restore", *flags, "--at", entry["at"], "-o", "x.db", "--dry-run", "--json").out)
        assert found["txid"] == entry["txid"], "an instant before the push is restored to as before"
    for txid, rows in ((answer["txid"], [41, 42]), (4, list(range(1, 4)))):
        target = tmp_path / f"{txid}.db"
        ended = replicad("restore", *flags, "--txid", str(txid), "--output", str(target))
        assert ended.code == 0, ended.err
        with closing(sqlite3.connect(target)) as connection:
            assert len(connection.execute("SELECT n FROM t").fetchall()) == len(rows)


def test_what_is_said(tmp_path: Path, replicad: Command) -> None:
    """A dry run, a push, and the same again: each says what it did, and what it did not."""
    path = make(tmp_path / "new.db", 1)
    flags = flags_of(tmp_path)
    ended = replicad("push", str(path), *flags, "--dry-run")
    assert ended.out.startswith(f"Would push {path} to app.db: TXID 1, as the first state, committed at 2"), ended.err
    assert not (tmp_path / "replica").exists()
    ended = replicad("push", str(path), *flags)
    assert ended.out.startswith(f"Pushed {path} to app.db: TXID 1, as the first state")
    assert " in 1 of 1 chunks sent, " in ended.out
    assert '"event":"pushed"' in ended.err
    ended = replicad("push", str(path), *flags)
    assert ended.out.startswith(f"{path} is the newest state of app.db already (TXID 1")
    answer = json.loads(replicad("push", str(path), *flags, "--dry-run", "--json").out)
    assert (answer["pushed"], answer["reason"], answer["same_state"]) == (False, "dry run", True)


def test_an_owner_that_lives(tmp_path: Path, replicad: Command, program: Command) -> None:
    """A daemon that lives hands over, which is said; one that nobody waits for is left alone, with status 11."""
    path = make(tmp_path / "new.db", 41)
    folder = tmp_path / "live"
    folder.mkdir()
    beat = ("--handover-poll-interval", "200ms")
    with running(folder, *beat) as live:
        live.write("INSERT INTO t VALUES (1)")
        live.answer("sync")
        flags = ("--replica", f"file://{folder}/replica", "--name", "app.db", *beat)
        live.process.send_signal(signal.SIGSTOP)  # it hears nothing, and is not known to be dead
        ended = replicad("push", str(path), *flags, "--timeout", "100ms")
        live.process.send_signal(signal.SIGCONT)
        assert ended.code == 11, ended.out
        assert "did not hand it over within 0.1 s" in ended.err
        live.write("INSERT INTO t VALUES (2)")
        live.answer("sync")
        # A file that a replicad on this machine follows is not pushed: its owner has the state that counts.
        ended = program("push", str(live.path), *flags)
        assert ended.code == 11
        assert "another replicad on this machine has the same database" in ended.err
        ended = replicad("push", str(path), *flags)
        assert ended.code == 0, ended.err
        assert "handed over, and keeps its writers out: restart it." in ended.out
        live.process.kill()
    ended = replicad("restore", *flags[:4], "--output", str(tmp_path / "out.db"))
    assert ended.code == 0, ended.err
    with closing(sqlite3.connect(tmp_path / "out.db")) as connection:
        assert connection.execute("SELECT n FROM t").fetchall() == [(41,)]


@pytest.mark.parametrize(
    ("content", "code", "found"),
    [
        (b"", 1, "an empty file"),
        (b"no database" * 1000, 1, "an encrypted database looks like that"),
        (None, 1, "there is no such file"),
    ],
)
def test_what_is_no_database(tmp_path: Path, replicad: Command, content: bytes | None, code: int, found: str) -> None:
    """One message, a status, and nothing stored."""
    path = tmp_path / "new.db"
    if content is not None:
        path.write_bytes(content)
    ended = replicad("push", str(path), *flags_of(tmp_path))
    assert ended.code == code
    assert found in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "replica").exists()


@pytest.mark.parametrize("arguments", [(), ("new.db", "--from-litestream", "file:///x")], ids=["neither", "both"])
def test_a_file_or_litestream(tmp_path: Path, replicad: Command, arguments: tuple[str, ...]) -> None:
    """One source, not two and not none."""
    ended = replicad("push", *arguments, *flags_of(tmp_path))
    assert ended.code == 64
    assert "a file or --from-litestream" in ended.err


def test_a_lock_that_was_left_behind(tmp_path: Path, replicad: Command) -> None:
    """A lock file beside the file is honoured; where there is none, none is made."""
    path = make(tmp_path / "new.db", 1)
    assert replicad("push", str(path), *flags_of(tmp_path)).code == 0
    lock = LockFile(Path(f"{path}-replicad.lock"))
    assert not lock.path.exists()
    lock.acquire()
    ended = replicad("push", str(path), *flags_of(tmp_path))
    assert ended.code == 11
    lock.release()
    assert replicad("push", str(path), *flags_of(tmp_path)).code == 0


def test_from_litestream(tmp_path: Path, replicad: Command) -> None:
    """A Litestream replica's newest state becomes the first one here, at the time that Litestream wrote it."""
    url = f"file://{GOLDEN}/v0.5.18"
    ended = replicad("push", "--from-litestream", url, *flags_of(tmp_path), "--json")
    assert ended.code == 0, ended.err
    answer = json.loads(ended.out)
    assert (answer["pushed"], answer["txid"], answer["litestream"]["version"]) == (True, 1, "0.5")
    (entry,) = json.loads(replicad("log", *flags_of(tmp_path), "--json").out)["entries"]
    assert (entry["note"], entry["at"]) == ("litestream", answer["committed_at"])
    assert replicad("restore", *flags_of(tmp_path)).code == 0
    assert (tmp_path / "app.db").read_bytes() == (GOLDEN / "v0.5.18.db").read_bytes()
    assert {one.name for one in tmp_path.iterdir()} == {"app.db", "replica"}, "nothing temporary is left"


def test_from_litestream_that_is_not_there(tmp_path: Path, replicad: Command) -> None:
    """No replica is "no backup"; a folder above replicas says where they are; another scheme is no URL."""
    empty = tmp_path / "empty"
    empty.mkdir()
    ended = replicad("push", "--from-litestream", f"file://{empty}", *flags_of(tmp_path))
    assert ended.code == 10
    ended = replicad("push", "--from-litestream", f"file://{GOLDEN}", *flags_of(tmp_path))
    assert ended.code == 64
    assert "which stands above" in ended.err
    assert "v0.5.18/" in ended.err
    ended = replicad("push", "--from-litestream", "gs://bucket/app", *flags_of(tmp_path))
    assert ended.code == 64
    assert "--from-litestream" in ended.err


def test_without_the_extra(tmp_path: Path, replicad: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the packages of the extra it is said how to get them, before anything is fetched."""
    monkeypatch.setitem(sys.modules, "lz4.block", None)
    ended = replicad("push", "--from-litestream", f"file://{GOLDEN}/v0.5.18", *flags_of(tmp_path))
    assert ended.code == 64
    assert "pip install 'replicad[litestream]'" in ended.err


def test_from_litestream_that_is_damaged(tmp_path: Path, replicad: Command) -> None:
    """What nothing leads around ends with 2 and the name of the file, a missing file with 14; nothing is stored."""
    root = tmp_path / "litestream"
    shutil.copytree(GOLDEN / "v0.5.18", root)
    for path in root.glob("ltx/*/*-000000000000000f.ltx"):
        path.write_bytes(path.read_bytes()[:-1])
    ended = replicad("push", "--from-litestream", f"file://{root}", *flags_of(tmp_path))
    assert ended.code == 2
    assert "000000000000000f.ltx is damaged" in ended.err
    shutil.rmtree(root / "ltx" / "9")
    shutil.rmtree(root / "ltx" / "2")
    next(root.glob("ltx/1/*-0000000000000006.ltx")).unlink()
    next(root.glob("ltx/0/*-0000000000000005.ltx")).unlink()
    ended = replicad("push", "--from-litestream", f"file://{root}", *flags_of(tmp_path))
    assert ended.code == 14
    assert "files reach transaction 4, the next one begins with 6" in ended.err
    assert {one.name for one in tmp_path.iterdir()} == {"litestream"}
