"""A restore that changes the database where it stands, killed at each of its steps."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from replicad.plan.target import AtTXID
from replicad.position import TXID
from replicad.restore.request import RestoreRequest
from replicad.restore.restore import restore
from replicad.store.directory import DirectoryStore
from tests.support.recorder import Recorder

ROOT = Path(__file__).parents[2]
OLD, NEW = 2, 5


async def stored(recorder: Recorder, root: Path) -> DirectoryStore:
    """Store a snapshot, and segments that change, lengthen and change again."""
    store = DirectoryStore(root, threads=1)
    recorder.fill(300)
    recorder.commit("UPDATE t SET body = randomblob(900) WHERE id % 20 = 0")
    recorder.fill(40)
    recorder.commit("UPDATE t SET body = randomblob(800) WHERE id % 30 = 1")
    await recorder.start(store)
    await recorder.snapshot(store, OLD)
    await recorder.segment(store, 3, 4)
    await recorder.segment(store, 5)
    return store


def rows(path: Path) -> list[tuple[int, bytes]]:
    """Return what an application would read, from a copy of the database and all that belongs to it."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return connection.execute("SELECT id, body FROM t ORDER BY id").fetchall()


async def test_killed_at_any_step_the_old_database_stands_or_the_new_one(tmp_path: Path) -> None:
    """TRAP: SIGKILL while a database is changed where it stands: SQLite reads all of the old one, or all of the new.

    And the next restore makes it the new one, whatever was left. Seen to fail without the journal, with one that
    is removed early or lacks a page, and with a wrong checksum in its records: rows of both, or a malformed image.
    """
    with Recorder(path=tmp_path / "source.db") as recorder:
        store = await stored(recorder, tmp_path / "store")
        old, new = recorder.transactions[OLD].database, recorder.transactions[NEW].database
    (tmp_path / "old.db").write_bytes(old)
    (tmp_path / "new.db").write_bytes(new)
    wanted = {OLD: rows(tmp_path / "old.db"), NEW: rows(tmp_path / "new.db")}
    folder = tmp_path / "t"
    command = [sys.executable, "-m", "tests.support.run_restore_killed", f"file://{tmp_path}/store"]
    seen: list[int] = []
    steps: list[str] = []
    with subprocess.Popen(  # noqa: ASYNC220 - nothing else runs on this loop meanwhile
        [*command, str(folder / "app.db")], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        while not steps or steps[-1] != "done":
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            (folder / "app.db").write_bytes(old)
            (folder / "app.db-replicad").write_bytes(b"{}")
            process.stdin.write(f"{len(steps) + 1}\n")
            process.stdin.flush()
            steps.append(process.stdout.readline().strip())
            assert steps[-1].startswith(("killed", "done"))
            for copy in ("read", "again"):
                shutil.rmtree(tmp_path / copy, ignore_errors=True)
                shutil.copytree(folder, tmp_path / copy)
            read = rows(tmp_path / "read" / "app.db")
            assert read in wanted.values(), f"neither state after {steps[-1]}"
            seen.append(OLD if read == wanted[OLD] else NEW)
            again = await restore(store, RestoreRequest(path=tmp_path / "again" / "app.db", force=True))
            assert (tmp_path / "again" / "app.db").read_bytes() == new
            assert again.in_place
            left = {path.name for path in (tmp_path / "again").iterdir() if ".replaced-" not in path.name}
            assert left == {"app.db"}
    assert seen == sorted(seen), "once new, it stays new"
    assert {OLD, NEW} == set(seen)
    assert sum("pwritev" in step for step in steps) > 10, "it was killed in the middle of writing, too"


async def test_the_state_file_is_moved_aside_with_the_old_state(tmp_path: Path) -> None:
    """A database that became another state leaves nothing beside it that speaks of the one before."""
    with Recorder(path=tmp_path / "source.db") as recorder:
        store = await stored(recorder, tmp_path / "store")
        states = {number: found.database for number, found in recorder.transactions.items()}
    target = tmp_path / "t" / "app.db"
    target.parent.mkdir()
    target.write_bytes(states[OLD])
    inode = target.stat().st_ino
    target.with_name("app.db-replicad").write_bytes(b"{}")
    for number in (3, 4, NEW):
        restored = await restore(store, RestoreRequest(path=target, target=AtTXID(TXID(number)), force=True))
        assert restored.in_place
        assert target.read_bytes() == states[number]
        assert [path.read_bytes() for path in restored.moved_aside] == ([b"{}"] if number == 3 else [])
    assert target.stat().st_ino == inode
    assert not target.with_name("app.db-replicad").exists()
    back = await restore(store, RestoreRequest(path=target, target=AtTXID(TXID(OLD)), force=True))
    assert not back.in_place
    assert target.read_bytes() == states[OLD]
    assert not target.with_name("app.db-journal").exists()
