"""What has gone wrong in this field, done to a running daemon. TRAPS.md, "Capture"."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from replicad.sqlite.versions import is_vulnerable
from tests.support.oracle import image_of
from tests.support.scene import Scene, connect, measured, rows_of
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

STALL_SECONDS = 0.5
SMALL = {
    "REPLICAD_SEGMENT_BYTES": "256KiB",
    "REPLICAD_CHECKPOINT_WAL_BYTES": "256KiB",
}


def wal_of(scene: Scene) -> Path:
    """Return the path of the WAL."""
    return Path(f"{scene.database}-wal")


def followed(scene: Scene) -> None:
    """Start a sidecar, and wait until the first snapshot is stored."""
    scene.daemon.start()
    scene.daemon.until("snapshot_stored")


# --- what applications write ----------------------------------------------------------------------


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_shrinking_and_large_transactions(scene: Scene, page_size: int) -> None:
    """VACUUM, auto_vacuum, incremental_vacuum, transactions larger than a segment: each state is as it was (#875)."""
    scene.daemon.environment |= SMALL
    scene.create("CREATE INDEX i ON t (v)", page_size=page_size, auto_vacuum=2)
    followed(scene)
    recorded: dict[int, int] = {}

    def note() -> None:
        recorded[scene.daemon.sync()] = scene.rows("SELECT coalesce(sum(n * length(v)), 0) FROM t")[0]

    for statements in (
        ["BEGIN", "INSERT INTO t SELECT value, randomblob(900) FROM generate_series(1, 1000)", "COMMIT"],
        ["DELETE FROM t WHERE n % 3 = 0"],
        ["PRAGMA incremental_vacuum(20)"],
        ["VACUUM"],
        ["PRAGMA auto_vacuum=1", "VACUUM", "DELETE FROM t WHERE n > 300"],
        ["UPDATE t SET v = randomblob(1200) WHERE n < 50"],
        ["DROP INDEX i", "DELETE FROM t", "VACUUM"],
    ):
        scene.write(*(statement.replace("generate_series(1, 1000)", SERIES) for statement in statements))
        note()
    assert scene.check_newest() == max(recorded)
    found = {txid: rows[0] for txid, rows in scene.states("SELECT coalesce(sum(n * length(v)), 0) FROM t").items()}
    assert {txid: found[txid] for txid in recorded} == recorded


SERIES = "(WITH RECURSIVE s(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM s LIMIT 1000) SELECT value FROM s)"


def test_small_commits_flat_out(scene: Scene) -> None:
    """Each commit of an application that makes them without a pause gets a TXID of its own, and none is missing."""
    scene.create()
    followed(scene)
    numbers = iter(range(10**9))
    connection, deadline = scene.connection, time.monotonic() + 1
    while time.monotonic() < deadline:
        for _ in range(100):
            connection.execute("INSERT INTO t VALUES (?, 'small')", (next(numbers),))
    commits = next(numbers)
    assert scene.daemon.sync() == 1 + commits
    assert scene.check_newest() == 1 + commits


@pytest.mark.parametrize("mode", ["FULL", "RESTART", "TRUNCATE"])
def test_the_applications_own_checkpoints(scene: Scene, mode: str) -> None:
    """An application that checkpoints by itself, again and again, is not held up, and no commit is missed (#724).

    Its checkpoint waits for the pin, which moves as soon as writers stand still. Others have held up all writers for
    their busy timeout.
    """
    scene.create()
    followed(scene)
    longest: list[float] = []
    number = 0
    deadline = time.monotonic() + 0.8
    while time.monotonic() < deadline:
        for _ in range(20):
            number += 1
            with measured(longest):
                scene.insert(number, size_bytes=500)
        with measured(longest):
            scene.rows(f"PRAGMA wal_checkpoint({mode})")
    assert max(longest) < STALL_SECONDS
    assert scene.daemon.sync() == 1 + number
    assert scene.check_newest() == 1 + number


def test_a_wal_used_again_at_the_same_size(scene: Scene) -> None:
    """A commit into a WAL that began again and looks as long as before is seen (#1083, #1037, #1104)."""
    scene.create()
    followed(scene)
    sizes = set()
    for number in range(5):
        scene.insert(number)
        assert scene.daemon.sync() == 2 + number
        sizes.add(wal_of(scene).stat().st_size)
        wait_until(lambda: scene.rows("PRAGMA wal_checkpoint(RESTART)")[0][0] == 0)
    assert len(sizes) <= 2
    assert [len(rows) for rows in scene.states().values()] == list(range(6))


def test_a_long_reader(scene: Scene) -> None:
    """A reader that stays keeps SQLite's WAL from beginning again, and nothing else: what is committed is stored."""
    scene.daemon.environment |= SMALL
    scene.create()
    followed(scene)
    with contextlib.closing(connect(scene.database)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM t").fetchall()
        longest: list[float] = []
        for number in range(300):
            with measured(longest):
                scene.insert(number, size_bytes=4000)
        assert scene.daemon.sync() == 301
        assert max(longest) < STALL_SECONDS
        assert reader.execute("SELECT count(*) FROM t").fetchone() == (0,)
    size_bytes = wal_of(scene).stat().st_size
    for number in range(1000, 1100):
        scene.insert(number, size_bytes=4000)
        scene.daemon.sync()
    assert wal_of(scene).stat().st_size < 2 * size_bytes
    scene.check_newest()


STORMS = """
import random, sqlite3, sys, time
path, first, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
committed = busy = 0
db = None
deadline = time.monotonic() + seconds
while time.monotonic() < deadline:
    try:
        if db is None or random.random() < 0.1:
            db and db.close()
            db = sqlite3.connect(path, isolation_level=None, timeout=0)
            db.execute("pragma wal_autocheckpoint=5")
        db.execute("begin immediate")
        db.execute("insert into t values (?, randomblob(3000))", (first + committed,))
        time.sleep(random.choice((0, 0, 0.002, 0.02)))
        db.execute("commit")
        committed += 1
    except sqlite3.OperationalError as error:
        assert "locked" in str(error), error
        busy += 1
        if db is not None and db.in_transaction:
            db.execute("rollback")
        time.sleep(random.random() * 0.002)
print(committed, busy)
"""


def test_a_storm_of_busy(scene: Scene) -> None:
    """Many processes that never wait for a lock get SQLITE_BUSY from each other, and replicad from them all.

    Each commit is a transaction all the same, and room is made in the WAL, for which the write lock is needed. Seen to
    fail with a write lock that does not expect BUSY: every attempt was reported as a failure.
    """
    scene.daemon.environment |= SMALL | {"REPLICAD_LOG_LEVEL": "debug"}
    scene.create()
    followed(scene)
    command = [sys.executable, "-S", "-c", STORMS, str(scene.database)]
    writers = [
        subprocess.Popen([*command, str(number * 10**6), "2"], stdout=subprocess.PIPE, text=True) for number in range(5)
    ]
    counted = [tuple(map(int, writer.communicate(timeout=60)[0].split())) for writer in writers]
    committed = sum(count for count, _ in counted)
    assert sum(busy for _, busy in counted) > committed / 10, "that was no storm"
    assert scene.daemon.sync() == 1 + committed
    assert scene.check_newest() == 1 + committed
    assert [rows[0] for rows in scene.states("SELECT count(*) FROM t").values()] == list(range(committed + 1))
    for failed in ("capture_failed", "checkpoint_failed", "continuity_lost"):
        assert not scene.daemon.found(failed)
    assert scene.daemon.found("checkpoint_done"), "no room was made"


LARGE_BYTES = 256 << 20


def test_a_transaction_larger_than_memory(scene: Scene) -> None:
    """A transaction is streamed from the WAL to the bucket: the daemon's memory does not grow with it (#1477).

    Seen to fail with `segment_bytes` above its size, by which it is gathered in memory: that took twice its size.
    """
    scene.daemon.environment["REPLICAD_SEGMENT_BYTES"] = "4MiB"
    scene.create()
    followed(scene)
    scene.insert(1)
    scene.daemon.sync()
    before = scene.daemon.most_resident_bytes()
    scene.write("BEGIN", "PRAGMA cache_size=-2000")
    scene.insert(*range(100, 100 + (LARGE_BYTES >> 22)), size_bytes=4 << 20)
    scene.write("COMMIT")
    assert scene.daemon.sync() == 3
    assert scene.database.stat().st_size + wal_of(scene).stat().st_size > LARGE_BYTES
    assert scene.daemon.most_resident_bytes() - before < LARGE_BYTES // 4
    assert scene.check_newest() == 3


LOCK_BYTE = 1 << 30


def test_a_database_across_the_lock_page(scene: Scene) -> None:
    """A database that grows past 1 GiB, is written to on both sides and shrinks below it again, is what is restored.

    SQLite never writes the page at 2**30. Seen to fail with that page counted into the checksum of a growing database:
    the proof of the restore failed.
    """
    page = 65536
    zeros = LOCK_BYTE // page // 2 * page - 30 * page
    scene.create(page_size=page, auto_vacuum=2)
    scene.write("BEGIN", *(f"INSERT INTO t VALUES ({number}, zeroblob({zeros}))" for number in (1, 2)), "COMMIT")
    scene.write("PRAGMA wal_checkpoint(TRUNCATE)")
    assert scene.database.stat().st_size < LOCK_BYTE
    scene.daemon.start()
    scene.daemon.until("snapshot_stored")
    scene.insert(*range(100, 180), size_bytes=page)
    scene.daemon.sync()
    scene.write("UPDATE t SET v = randomblob(60000) WHERE n IN (101, 178)")
    scene.daemon.sync()
    assert scene.rows("PRAGMA page_count")[0] * page > LOCK_BYTE + 2 * page
    expected = scene.folder / "expected.db"
    expected.write_bytes(image_of(scene.database))
    restored = scene.restore()
    subprocess.run(["cmp", str(restored), str(expected)], check=True)
    assert rows_of(restored, "SELECT count(*) FROM t") == [82]
    scene.write("DELETE FROM t WHERE n >= 100")
    scene.connection.executescript("PRAGMA incremental_vacuum")  # one page a step: `execute` makes one
    scene.daemon.sync()
    assert scene.rows("PRAGMA page_count")[0] * page < LOCK_BYTE
    expected.write_bytes(image_of(scene.database))
    restored = scene.restore("--force")
    subprocess.run(["cmp", str(restored), str(expected)], check=True)
    assert rows_of(restored) == [1, 2]


def test_a_rollback_behind_a_reset(scene: Scene) -> None:
    """A sync returns, though the newest WAL holds nothing: its header was written by what was rolled back.

    Seen to fail: the sync looked for a frame that will not come, without a pause and for ever.
    """
    scene.create()
    followed(scene)
    scene.insert(*range(20), size_bytes=3000)
    scene.daemon.sync()
    header = wal_of(scene).read_bytes()[:32]
    scene.write("PRAGMA cache_size=5")

    def began_again() -> bool:
        scene.write("BEGIN")
        scene.insert(*range(100, 140), size_bytes=3000)
        scene.write("ROLLBACK")
        return wal_of(scene).read_bytes()[:32] != header

    wait_until(began_again)
    assert scene.daemon.sync() == 21
    scene.insert(200)
    assert scene.daemon.sync() == 22
    scene.check_newest()


# --- what stands there at the start ------------------------------------------------------------------


def half_written(folder: Path) -> None:
    """Leave a WAL whose last transaction lacks its end, as a power cut does."""
    wal = folder / "app.db-wal"
    wal.write_bytes(wal.read_bytes()[:-2000])


def flipped(folder: Path) -> None:
    """Leave a WAL whose last frame is not what its checksum says."""
    wal = folder / "app.db-wal"
    raw = bytearray(wal.read_bytes())
    raw[-100] ^= 1
    wal.write_bytes(raw)


def header_alone(folder: Path) -> None:
    """Leave a WAL that ends exactly behind its header."""
    wal = folder / "app.db-wal"
    wal.write_bytes(wal.read_bytes()[:32])


def empty(folder: Path) -> None:
    """Leave a WAL without a byte."""
    (folder / "app.db-wal").write_bytes(b"")


def untouched(folder: Path) -> None:
    """Leave a WAL with frames of an older one behind those that count."""
    del folder


@pytest.mark.parametrize("crafted", [half_written, flipped, header_alone, empty, untouched])
def test_a_wal_as_a_crash_leaves_it(scene: Scene, crafted: object) -> None:
    """An empty WAL, one at its header, a torn last transaction, frames of an older WAL: what SQLite reads is stored."""
    assert callable(crafted)
    origin = scene.folder / "origin"
    origin.mkdir()
    with contextlib.closing(connect(origin / "app.db")) as connection:
        connection.execute("PRAGMA journal_mode=wal")
        connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, v)")
        for number in range(20):
            connection.execute("INSERT INTO t VALUES (?, randomblob(3000))", (number,))
        connection.execute("PRAGMA wal_checkpoint(RESTART)")
        for number in range(100, 103):
            connection.execute("INSERT INTO t VALUES (?, randomblob(3000))", (number,))
        shutil.copy(origin / "app.db", scene.disk)
        shutil.copy(origin / "app.db-wal", scene.disk)
    crafted(scene.disk)
    check = scene.folder / "check"
    shutil.copytree(scene.disk, check)
    with contextlib.closing(connect(check / "app.db")) as connection:
        expected = [number for (number,) in connection.execute("SELECT n FROM t ORDER BY n")]
    followed(scene)
    scene.daemon.sync()
    assert scene.rows() == expected
    scene.check_newest()
    scene.insert(500, 501)
    assert scene.daemon.sync() == 3
    scene.check_newest()
    assert list(scene.states().values()) == [expected, [*expected, 500], [*expected, 500, 501]]


def test_an_application_that_locks_exclusively(scene: Scene) -> None:
    """A database that its application keeps for itself is an error that says so, and the application goes on."""
    scene.create()
    scene.write("PRAGMA locking_mode=exclusive")
    scene.insert(1)
    scene.daemon.launch()
    scene.insert(2)
    assert scene.daemon.wait() == 1
    assert "locking_mode=exclusive" in scene.daemon.lines()
    scene.insert(3)
    assert scene.rows() == [1, 2, 3]


# --- the file is another one --------------------------------------------------------------------------


def other_database(scene: Scene, *numbers: int, size_bytes: int = 100) -> Path:
    """Make a database beside, closed in order: one file."""
    path = scene.folder / "other.db"
    with contextlib.closing(connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=wal")
        connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, v)")
        for number in numbers:
            connection.execute("INSERT INTO t VALUES (?, randomblob(?))", (number, size_bytes))
    return path


@pytest.mark.parametrize(("how", "size_bytes"), [("mv", 10), ("mv", 3000), ("cp", 3000)])
def test_a_file_put_in_place(scene: Scene, how: str, size_bytes: int) -> None:
    """A file put in place of the database, by mv or by cp, is followed as it is: the old one's WAL is not laid over it.

    The application is not running meanwhile; the daemon is. Seen to fail without `set_wal_aside` (the old rows came
    back) and, by cp, without the look at page 1 (nothing was noticed).
    """
    scene.create()
    followed(scene)
    scene.insert(*range(20), size_bytes=3000)
    before = scene.daemon.sync()
    scene.close()
    scene.daemon.sync()
    other = other_database(scene, *range(100, 110), size_bytes=size_bytes)
    if how == "mv":
        other.rename(scene.database)
    else:
        subprocess.run(["cp", str(other), str(scene.database)], check=True)
    scene.daemon.until("resynchronised")  # who connects before takes the old WAL for the new file's, and keeps it there
    assert scene.rows() == list(range(100, 110))
    scene.insert(200)
    assert scene.daemon.sync() >= before + 2
    scene.check_newest()
    assert scene.rows("PRAGMA integrity_check") == ["ok"]
    states = scene.states()
    assert states[before] == list(range(20)), "earlier history remains"
    assert list(states.values())[-2:] == [list(range(100, 110)), [*range(100, 110), 200]]
    assert rows_of(scene.restore("--txid", str(before))) == list(range(20))


DELETES = """
import os, sqlite3, sys
path = sys.argv[1]
for end in ("", "-wal", "-shm"):
    if os.path.exists(path + end):
        os.unlink(path + end)
db = sqlite3.connect(path, isolation_level=None)
db.execute("pragma journal_mode=" + sys.argv[2])
db.execute("create table t (n integer primary key, v)")
db.execute("insert into t values (500, 'anew')")
"""


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_an_application_that_deletes_its_database_at_the_start(scene: Scene, mode: str) -> None:
    """An application that deletes what was restored and begins anew is replicated; the state before is not lost.

    (Stratos #5832: the empty database was streamed over the good head.) Its last commit comes right before its end.
    """
    scene.create()
    scene.insert(*range(20), size_bytes=3000)
    scene.close()
    scene.daemon.launch(["true"])
    assert scene.daemon.wait() == 0
    good = scene.check_newest()
    scene.lose_disk()
    scene.daemon.launch([sys.executable, "-S", "-c", DELETES, str(scene.database), mode])
    assert scene.daemon.wait() == 0
    assert scene.rows() == [500]
    assert scene.check_newest() > good
    states = scene.states()
    assert states[good] == list(range(20))
    assert list(states.values())[-1] == [500]
    assert rows_of(scene.restore("--txid", str(good))) == list(range(20))


def test_a_database_that_has_just_been_made(scene: Scene) -> None:
    """A sync behind the first commits of a new database waits for them, also when nobody has noticed the file yet.

    Seen to fail in every other run: the sync returned at once, as where there is no database.
    """
    scene.daemon.start()
    durable = 0
    for turn in range(1, 6):
        scene.daemon.until("database_awaited", count=turn)
        scene.create(f"INSERT INTO t VALUES ({turn}, 0)")
        before, durable = durable, scene.daemon.sync()
        assert durable > before
        scene.check_newest()
        for file in scene.disk.glob("app.db*"):
            file.unlink()


def test_a_database_that_is_deleted(scene: Scene) -> None:
    """A deleted database is waited for; a sync and an end in order do not wait, for there is nothing to send."""
    scene.create()
    followed(scene)
    scene.insert(1)
    scene.daemon.sync()
    scene.close()
    scene.daemon.sync()
    for end in ("", "-wal", "-shm"):
        Path(f"{scene.database}{end}").unlink(missing_ok=True)
    scene.daemon.until("database_awaited")
    assert scene.daemon.sync() == 2
    scene.create("INSERT INTO t VALUES (7, 7)")
    scene.daemon.until("database_found")
    scene.daemon.sync()
    scene.check_newest()
    for end in ("", "-wal", "-shm"):
        Path(f"{scene.database}{end}").unlink(missing_ok=True)
    scene.daemon.until("database_awaited", count=2)
    assert scene.daemon.stop() == 0


def test_a_database_that_is_renamed_away(scene: Scene) -> None:
    """A database that is moved away and back is the same database: what it got under its other name is stored, too.

    The application closes it in order before each move, as `mv` needs; replicad's connections are open all the while.
    Seen to fail with a missing file taken for the same one: nobody noticed.
    """
    scene.create()
    followed(scene)
    scene.insert(*range(10), size_bytes=3000)
    scene.daemon.sync()
    scene.write("PRAGMA wal_checkpoint(TRUNCATE)")
    scene.close()
    away = scene.folder / "away.db"
    scene.database.rename(away)
    scene.daemon.until("database_awaited")
    with contextlib.closing(connect(away)) as connection:
        connection.execute("INSERT INTO t VALUES (100, 'away')")
    away.rename(scene.database)
    scene.daemon.until("database_found")
    wait_until(lambda: scene.daemon.status()["state"] == "following")
    assert scene.rows() == [*range(10), 100]
    scene.insert(200)
    scene.daemon.sync()
    scene.check_newest()
    assert scene.rows("PRAGMA integrity_check") == ["ok"]
    states = list(scene.states().values())
    assert states[:11] == [list(range(count)) for count in range(11)]
    assert states[-2:] == [[*range(10), 100], [*range(10), 100, 200]]


def test_a_database_that_is_emptied(scene: Scene) -> None:
    """A file truncated to nothing is a database that is gone; what is made of it later is followed."""
    scene.create()
    followed(scene)
    scene.insert(*range(5), size_bytes=3000)
    before = scene.daemon.sync()
    scene.close()
    scene.daemon.sync()
    os.truncate(scene.database, 0)
    scene.daemon.until("database_awaited")
    scene.create("INSERT INTO t VALUES (7, 7)")
    scene.daemon.until("database_found")
    scene.daemon.sync()
    scene.check_newest()
    assert scene.rows() == [7]
    assert scene.states()[before] == list(range(5))


def test_a_file_that_becomes_garbage_and_good_again(scene: Scene) -> None:
    """A file that cannot be followed any more is said to be so, once; the next good one is followed."""
    scene.create()
    followed(scene)
    scene.insert(1)
    scene.daemon.sync()
    scene.close()
    scene.daemon.sync()
    other = other_database(scene, 5, 6)
    garbage = scene.folder / "garbage"
    garbage.write_bytes(os.urandom(8192))
    garbage.rename(scene.database)
    line = scene.daemon.until("database_unusable")
    assert "encrypted" in str(line["error"])
    assert scene.daemon.status()["state"] == "unusable"
    other.rename(scene.database)
    wait_until(lambda: scene.daemon.status()["state"] == "following", 30)
    scene.daemon.sync()
    scene.check_newest()
    assert scene.rows() == [5, 6]
    assert len(scene.daemon.found("database_unusable")) == 1


# --- locks -------------------------------------------------------------------------------------------

WATCHED = """
import os, sys
database, notes = sys.argv[1:3]
names = {database, os.path.realpath(database)}
names |= {name + "-shm" for name in names}
log = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def note(event, found):
    if event == "open" and isinstance(found[0], (str, bytes, os.PathLike)) and os.fsdecode(found[0]) in names:
        os.write(log, (os.fsdecode(found[0]) + "\\n").encode())
sys.addaudithook(note)
from replicad.cli.main import main
sys.exit(main(sys.argv[3:]))
"""

COMES_AND_GOES = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("insert into t values (?, randomblob(100))", (sys.argv[2],))
db.close()
"""


def test_no_lock_is_dropped(scene: Scene) -> None:
    """TRAP: nothing that the daemon does drops its locks, nor opens the database or its -shm other than by SQLite.

    A process loses all its POSIX locks on a file when it closes any descriptor of it. The next application that closes
    its connection then believes to be the last, and deletes the WAL: what others commit into it is gone. Seen to fail,
    in both respects, with a look at the file's header by `open` at each status.
    """
    scene.create()
    notes = scene.folder / "opened"
    scene.daemon.start(arguments=("-c", WATCHED, str(scene.database), str(notes), "run"))
    scene.daemon.until("snapshot_stored")
    comes = [sys.executable, "-S", "-c", COMES_AND_GOES, str(scene.database)]
    subprocess.run([*comes, "0"], check=True)
    wal = wal_of(scene).stat().st_ino
    for number in range(1, 6):
        subprocess.run([*comes, str(number)], check=True)
        scene.daemon.sync()
        scene.daemon.status()
        scene.daemon.snapshot()
        assert scene.program("status").returncode == 0
    wait_until(lambda: scene.daemon.status()["wal_bytes"] is not None)
    subprocess.run([*comes, "6"], check=True)
    assert wal_of(scene).stat().st_ino == wal, "an application believed to be alone, and deleted the WAL"
    assert scene.daemon.sync() == 8
    scene.check_newest()
    assert notes.read_text() == ""


# --- an application's SQLite ------------------------------------------------------------------------


def test_an_application_with_the_wal_reset_bug(scene: Scene) -> None:
    """An application whose SQLite can corrupt a database when somebody checkpoints beside it is named (#1432)."""
    scene.create()
    followed(scene)
    found = [line["application_sqlite"] for line in scene.daemon.found("sqlite_vulnerable")]
    assert found == [sqlite3.sqlite_version] * is_vulnerable(sqlite3.sqlite_version)


# --- disks ---------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Scene]:
    """A scene whose disk is a file system of 4 MB."""
    with Scene(tmp_path) as found:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(found.disk)],
            capture_output=True,
            text=True,
            check=False,
        )
        if mounted.returncode:
            pytest.skip(f"needs the right to mount: {mounted.stderr.strip()}")
        try:
            yield found
        finally:
            found.close()
            found.kill()
            subprocess.run(["umount", "--lazy", str(found.disk)], check=True)


def test_a_full_disk(small_disk: Scene) -> None:
    """On a full disk the application gets SQLite's own error; what it commits all the same, and later, is stored.

    There is no room for checkpoints then. Seen to fail while one that failed ended the round: what had been read was
    not sent.
    """
    scene = small_disk
    scene.daemon.environment |= SMALL
    scene.create()
    followed(scene)
    ballast = scene.disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    os.truncate(ballast, ballast.stat().st_size - (1 << 20))  # for the WAL, but not for the database as well
    with pytest.raises(sqlite3.OperationalError, match="full"):
        scene.insert(*range(1000), size_bytes=3000)
    scene.daemon.until("checkpoint_failed")
    os.truncate(ballast, ballast.stat().st_size - (32 << 10))
    scene.insert(5000)
    committed = len(scene.rows())
    wait_until(lambda: scene.daemon.status()["durable_txid"] == 1 + committed)
    assert list(scene.states().values())[-1] == scene.rows()
    assert len(scene.keys("snapshot")) <= 2, "a fault that lasts must not be answered by snapshot after snapshot"
    ballast.unlink()
    scene.insert(6000)
    scene.daemon.sync()
    scene.check_newest()
    assert scene.daemon.stop() == 0


def test_a_read_only_disk(small_disk: Scene) -> None:
    """A database in a place that cannot be written to ends the start with an error that says what is needed."""
    scene = small_disk
    scene.create()
    subprocess.run(["mount", "-o", "remount,ro", str(scene.disk)], check=True)
    scene.daemon.launch()
    assert scene.daemon.wait() == 1
    assert "that this user may write to it" in scene.daemon.lines()
