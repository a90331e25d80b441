"""The place where a restored database will stand."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import apsw
import pytest

from replicad.errors import FileUnusable, TargetBusy, TargetExists
from replicad.restore.place import COMPANIONS, Place, resolve_target

if TYPE_CHECKING:
    from pathlib import Path

NOW_MS = 1_763_690_400_000
STAMP = "20251121T020000Z"


def taken(target: Path) -> Place:
    """Return the place, locked."""
    place = Place(target)
    try:
        place.take()
    except BaseException:
        place.release()
        raise
    return place


def names(folder: Path) -> list[str]:
    """Return what is in a folder."""
    return sorted(found.name for found in folder.iterdir())


def finished(place: Place, body: bytes = b"new") -> Path:
    """Return a finished temporary file."""
    temporary = place.temporary()
    temporary.write_bytes(body)
    return temporary


def test_a_target_that_exists_is_left_alone(tmp_path: Path) -> None:
    """Without force, whatever stands at the target is an error that says what to do."""
    (tmp_path / "a").touch()
    with pytest.raises(TargetExists, match="--force"):
        resolve_target(tmp_path / "a", force=False)
    assert resolve_target(tmp_path / "a", force=True) == tmp_path / "a"


def test_links_are_followed(tmp_path: Path) -> None:
    """A link stays a link: the database is made, or replaced, where it points to."""
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "real")
    assert resolve_target(tmp_path / "link", force=False) == tmp_path / "folder" / "real"


@pytest.mark.parametrize("kind", ["folder", "loop", "pipe"])
def test_what_is_no_file_is_not_replaced(tmp_path: Path, kind: str) -> None:
    """A folder, a pipe or a link onto itself is an error, with force as well."""
    target = tmp_path / "a"
    if kind == "folder":
        target.mkdir()
    elif kind == "loop":
        target.symlink_to(target)
    else:
        os.mkfifo(target)
    with pytest.raises(FileUnusable):
        resolve_target(target, force=True)


def test_a_missing_folder_is_made_and_nothing_is_left(tmp_path: Path) -> None:
    """TRAP: target directory missing: it is made, and after a restore only the database is in it.

    Seen to fail (FileUnusable) without the mkdir.
    """
    place = taken(tmp_path / "x" / "y" / "app.db")
    place.put(finished(place), keep_replaced=False, now_ms=NOW_MS)
    place.release()
    place.release()
    assert names(tmp_path / "x" / "y") == ["app.db"]


def test_one_restore_at_a_time(tmp_path: Path) -> None:
    """TRAP: of concurrent restores of one target the second fails at once, and the first is not disturbed.

    Seen to fail without the flock: both went on.
    """
    first = taken(tmp_path / "app.db")
    temporary = finished(first)
    with pytest.raises(TargetBusy, match="another restore"):
        taken(tmp_path / "app.db")
    other = taken(tmp_path / "other.db")
    assert temporary.exists()
    first.release()
    other.release()
    taken(tmp_path / "app.db").release()


def test_a_killed_restore_leaves_no_lock_and_its_file_is_removed(tmp_path: Path) -> None:
    """What a restore that was killed left behind is removed by the next one; other databases' files are not."""
    program = (
        "import os, signal, sys; from pathlib import Path; from replicad.restore.place import Place;"
        "place = Place(Path(sys.argv[1])); place.take(); place.temporary().write_bytes(b'half');"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "app.db")], check=False, timeout=30)
    (tmp_path / ".app.db2.replicad-aa.tmp").touch()
    (tmp_path / ".app.db.other.tmp").touch()
    assert len(names(tmp_path)) == 4
    taken(tmp_path / "app.db").release()
    assert names(tmp_path) == [".app.db.other.tmp", ".app.db2.replicad-aa.tmp"]


def test_a_lock_file_that_was_removed_meanwhile_is_made_anew(tmp_path: Path) -> None:
    """Whoever gets the lock on a file that has lost its name takes the lock of the one that has it."""
    first = taken(tmp_path / "app.db")
    lock = tmp_path / ".app.db.replicad-lock"
    waiting = os.open(lock, os.O_RDWR)  # opened before the first lets go
    first.release()
    second = taken(tmp_path / "app.db")
    assert not os.path.samestat(os.fstat(waiting), lock.stat())
    os.close(waiting)
    with pytest.raises(TargetBusy):
        taken(tmp_path / "app.db")
    second.release()


def test_stale_companions_are_moved_aside_first(tmp_path: Path) -> None:
    """TRAP: a stale `-wal` beside a missing database would be replayed onto the restored file.

    Seen to fail without `_companions`: SQLite showed the row of the WAL.
    """
    with closing(apsw.Connection(str(tmp_path / "app.db"))) as connection:
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.pragma("journal_mode", "wal")
        connection.execute("CREATE TABLE t (x)")
        connection.wal_checkpoint()
        image = (tmp_path / "app.db").read_bytes()
        connection.execute("INSERT INTO t VALUES (1)")
        wal = (tmp_path / "app.db-wal").read_bytes()
    for found in tmp_path.iterdir():
        found.unlink()
    (tmp_path / "app.db-wal").write_bytes(wal)
    for suffix in ("-shm", "-journal", "-replicad"):
        (tmp_path / f"app.db{suffix}").touch()
    place = taken(tmp_path / "app.db")
    moved = place.put(finished(place, image), keep_replaced=False, now_ms=NOW_MS)
    place.release()
    assert sorted(path.name for path in moved) == sorted(f"app.db.replaced-{STAMP}{suffix}" for suffix in COMPANIONS)
    assert (tmp_path / f"app.db.replaced-{STAMP}-wal").read_bytes() == wal
    with closing(apsw.Connection(str(tmp_path / "app.db"))) as connection:
        assert connection.execute("SELECT * FROM t").fetchall() == []


def test_the_old_database_can_be_kept_whole(tmp_path: Path) -> None:
    """What is replaced stays a database under its new name: its WAL stands beside it, and is found by SQLite."""
    connection = apsw.Connection(str(tmp_path / "app.db"))
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.pragma("journal_mode", "wal")
    connection.pragma("wal_autocheckpoint", 0)
    connection.execute("CREATE TABLE t (x); INSERT INTO t VALUES (1)")
    connection.close()
    place = taken(tmp_path / "app.db")
    moved = place.put(finished(place), keep_replaced=True, now_ms=NOW_MS)
    place.release()
    kept = tmp_path / f"app.db.replaced-{STAMP}"
    assert kept in moved
    with closing(apsw.Connection(str(kept))) as connection:
        assert connection.execute("SELECT * FROM t").fetchall() == [(1,)]
    assert (tmp_path / "app.db").read_bytes() == b"new"


def test_nothing_is_ever_overwritten_by_what_is_moved_aside(tmp_path: Path) -> None:
    """Two replacements within one second keep both."""
    (tmp_path / "app.db").write_bytes(b"0")
    for number in (1, 2, 3):
        place = taken(tmp_path / "app.db")
        (tmp_path / "app.db-wal").write_bytes(b"%d" % number)
        place.put(finished(place, b"%d" % number), keep_replaced=True, now_ms=NOW_MS)
        place.release()
    kept = {found.name: found.read_bytes() for found in tmp_path.iterdir()}
    assert kept == {
        "app.db": b"3",
        **{f"app.db.replaced-{STAMP}{n}": body for n, body in (("", b"0"), ("-2", b"1"), ("-3", b"2"))},
        **{f"app.db.replaced-{STAMP}{n}-wal": body for n, body in (("", b"1"), ("-2", b"2"), ("-3", b"3"))},
    }


def test_a_rename_that_fails_puts_everything_back(tmp_path: Path) -> None:
    """When the new file cannot be put in place, the old one has its companions again."""
    (tmp_path / "app.db").write_bytes(b"old")
    (tmp_path / "app.db-wal").write_bytes(b"wal")
    place = taken(tmp_path / "app.db")
    with pytest.raises(FileUnusable):
        place.put(tmp_path / "missing.tmp", keep_replaced=True, now_ms=NOW_MS)
    place.release()
    assert {found.name: found.read_bytes() for found in tmp_path.iterdir()} == {"app.db": b"old", "app.db-wal": b"wal"}


def test_a_database_that_is_open_is_not_replaced(tmp_path: Path) -> None:
    """A database that some process has open is refused: it would go on writing into a file without a name."""
    with closing(apsw.Connection(str(tmp_path / "app.db"))) as connection:
        connection.pragma("journal_mode", "wal")
        connection.execute("CREATE TABLE t (x)")
        with pytest.raises(TargetBusy, match="is open"):
            taken(tmp_path / "app.db")
    place = taken(tmp_path / "app.db")
    with closing(apsw.Connection(str(tmp_path / "app.db"))) as connection:
        connection.execute("SELECT * FROM t").fetchall()
        with pytest.raises(TargetBusy, match="is open"):
            place.put(finished(place), keep_replaced=False, now_ms=NOW_MS)
    place.release()


def test_the_folder_is_synced_after_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRAP: a rename without an fsync of the folder is not yet on the disk.

    Watched through the calls that reach the operating system; seen to fail without `fsync_directory`.
    """
    calls: list[str] = []
    real_rename, real_fsync = os.rename, os.fsync

    def rename(source: str, target: str) -> None:
        calls.append("rename")
        real_rename(source, target)

    def fsync(descriptor: int) -> None:
        calls.append("fsync of " + os.path.realpath(f"/proc/self/fd/{descriptor}"))
        real_fsync(descriptor)

    monkeypatch.setattr(os, "rename", rename)
    monkeypatch.setattr(os, "fsync", fsync)
    place = taken(tmp_path / "app.db")
    place.put(finished(place), keep_replaced=False, now_ms=NOW_MS)
    place.release()
    assert calls == ["rename", f"fsync of {tmp_path}"]
