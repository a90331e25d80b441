"""The rhythm of one capture: when the pin moves, when room is made, and when all is left alone."""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path
from typing import TYPE_CHECKING

import apsw
import pytest

from replicad.config import SETTINGS
from replicad.config.units import parse_size
from replicad.plan.checkpoint import CheckpointLimits
from replicad.replicate import capture as capture_module
from replicad.replicate import room as room_module
from replicad.replicate.beat import BUSY_INTERVAL_SECONDS, Beat, Round, Wishes
from replicad.replicate.capture import Capture
from replicad.replicate.reading import Reached
from replicad.replicate.room import ROOM_SEGMENTS, make_room
from replicad.segment import MAX_TRANSACTIONS
from replicad.sqlite.source import Source, begin_read
from tests.support.captured import open_capture
from tests.support.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOM_BYTES = 256 << 10
SEGMENT_BYTES = 1 << 20
FRAME_BYTES = 4096 + 24


class Rhythm:
    """A beat over a database, on a clock that the test moves, and the application's connection."""

    def __init__(self, path: Path, *, segment_bytes: int = SEGMENT_BYTES, room_bytes: int = ROOM_BYTES) -> None:
        self.path = path
        self.writer = apsw.Connection(str(path))
        self.writer.pragma("journal_mode", "wal")
        self.writer.pragma("wal_autocheckpoint", 0)
        self.writer.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, v)")
        self.source = Source(path)
        self.clock = ManualClock()
        self.capture = open_capture(self.source, Capture, segment_bytes=segment_bytes, clock=self.clock)
        self.beat = Beat(self.capture, CheckpointLimits(room_bytes=room_bytes), self.clock)

    def insert(self, count: int = 1, size_bytes: int = 100) -> None:
        """Commit rows, each by itself."""
        for _ in range(count):
            self.writer.execute("INSERT INTO t VALUES (NULL, randomblob(?))", (size_bytes,))

    def round(self, after_seconds: float = BUSY_INTERVAL_SECONDS, wishes: Wishes = Wishes()) -> Round:  # noqa: B008
        """Let time go by, and do a round; what was read is taken away."""
        self.clock.advance(after_seconds)
        found = self.beat.round(wishes)
        if self.capture.open_segment is not None:
            self.capture.seal()
        return found

    def until_rest(self) -> None:
        """Do rounds until everything is copied and the pin stands still."""
        for _ in range(20):
            if self.round(1.1).pause_seconds is None and self.index() == (self.source.index().frames,) * 2:
                return
        pytest.fail("it does not come to rest")

    def index(self) -> tuple[int, int]:
        """Return how many frames there are, and how many of them are copied."""
        found = self.source.index()
        return found.frames, found.backfilled

    def checkpoint(self, mode: int) -> bool:
        """Checkpoint as an application does, without waiting; return whether it got through."""
        try:
            frames, copied = self.writer.wal_checkpoint(mode=mode)
        except apsw.BusyError:
            return False
        return frames == copied

    def salts(self) -> bytes:
        """Return the salts of the WAL."""
        return self.source.index().salts

    def close(self) -> None:
        """Close both."""
        self.source.close()
        self.writer.close()


class Occupied(apsw.Connection):
    """A connection for checkpoints that finds somebody else inside one, so many times."""

    times = 0

    def wal_checkpoint(self, dbname: str | None = None, mode: int = 0) -> tuple[int, int]:
        """Checkpoint, if nobody does."""
        if self.times:
            self.times -= 1
            raise apsw.BusyError("database is locked")
        return super().wal_checkpoint(dbname, mode)


@pytest.fixture
def rhythm(tmp_path: Path) -> Iterator[Rhythm]:
    """A beat that has not begun."""
    found = Rhythm(tmp_path / "app.db")
    yield found
    found.close()


def test_a_round_says_what_it_found(rhythm: Rhythm) -> None:
    """News, what is unread and how long the WAL is; without a commit since the last one, none."""
    rhythm.round()
    rhythm.insert(3)
    found = rhythm.round()
    assert found.news
    assert found.reached is Reached.END
    assert found.unread_bytes == 0
    assert found.wal_bytes == rhythm.source.index().frames * FRAME_BYTES
    assert not rhythm.round(0.001).news
    assert not found.replaced


def test_the_pin_stands_still_while_frames_are_added(rhythm: Rhythm) -> None:
    """Beside a busy application the pin stays where it is, until the WAL is long: what it sets free costs a commit.

    Moved at each look it would also hop back onto the mark that a checkpoint waits for; stalls of 10 s were measured.
    """
    rhythm.insert(5)
    rhythm.round()
    stood = []
    for _ in range(40):
        rhythm.insert()
        rhythm.round(0.009)
        stood.append(rhythm.checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE))
    assert not any(stood), "the pin moved"
    rhythm.round(0.02)
    assert rhythm.checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE), "and it moves when nothing is added any more"


def test_the_pin_moves_soon_in_a_wal_that_stands_still(rhythm: Rhythm) -> None:
    """An application's checkpoint that waits, with its writers behind it, gets through after some tens of milliseconds.

    Seen to fail with the same 150 ms between all moves: a TRUNCATE took 0.2 to 0.5 s instead of some milliseconds.
    """
    rhythm.insert(5)
    rhythm.round()
    rhythm.insert(5)
    rhythm.round(0.001)
    assert not rhythm.checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)
    looks = 0
    while not rhythm.checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE):
        rhythm.round(0.005)
        looks += 1
        assert looks < 20, "the application's checkpoint does not get through"


@pytest.mark.parametrize("mode", [apsw.SQLITE_CHECKPOINT_RESTART, apsw.SQLITE_CHECKPOINT_TRUNCATE])
def test_the_pin_comes_to_rest(rhythm: Rhythm, mode: int) -> None:
    """Within a few moves after the last commit, an application's RESTART or TRUNCATE succeeds at once."""
    rhythm.insert(5)
    for _ in range(4):
        rhythm.round(BUSY_INTERVAL_SECONDS)
        if rhythm.checkpoint(mode):
            return
    pytest.fail("the application's checkpoint does not get through")


def test_room_is_made_at_the_limit(rhythm: Rhythm) -> None:
    """Past the limit the next writer begins the WAL anew, and not a frame is lost by it."""
    rhythm.round()
    commits = 0
    salts = rhythm.salts()
    while rhythm.salts() == salts and commits < 1000:
        rhythm.insert(10, 3000)
        commits += 10
        rhythm.round()
    assert rhythm.salts() != salts
    assert commits * FRAME_BYTES < 4 * ROOM_BYTES
    rhythm.round()
    assert rhythm.capture.next_txid == 1 + commits


def test_the_disk_is_waited_for_before_the_pin_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a moved pin sets free is on the disk by then: the application copies it in a commit, which waits for that.

    Without it the longest commit of a busy application was twice as long, and it made fewer.
    """
    rhythm = Rhythm(tmp_path / "app.db", segment_bytes=16 << 20, room_bytes=16 << 20)
    steps: list[str] = []

    def note(owner: object, name: str) -> None:
        done = getattr(owner, name)

        def noted(**flags: float) -> object:
            steps.append(name)
            return done(**flags)

        monkeypatch.setattr(owner, name, noted)

    note(rhythm.source.wal, "sync")
    note(rhythm.source, "release_previous")
    note(rhythm.source, "backfill")
    rhythm.insert(1, 1 << 20)
    rhythm.round()
    rhythm.round()
    assert steps == ["release_previous"], "little is left to the application"
    rhythm.insert(1, 5 << 20)
    rhythm.round()
    rhythm.round()
    assert steps[1:] == ["sync", "release_previous", "backfill"]
    steps.clear()
    assert make_room(rhythm.capture).done
    assert steps == ["sync", "release_previous", "backfill", "release_previous", "backfill", "release_previous"]
    rhythm.close()


def test_a_disk_that_cannot_be_waited_for(rhythm: Rhythm, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRAP: a full or broken disk costs no commit: what is read goes on, the round says why, and it is tried again.

    Seen to fail when only SQLite's errors were expected there: the round raised instead.
    """

    def fail() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    rhythm.round()
    rhythm.insert(100, 3000)
    with monkeypatch.context() as broken:
        broken.setattr(rhythm.source.wal, "sync", fail)
        found = rhythm.round()
        assert found.failed is not None
        assert "No space left" in found.failed
        assert found.reached is Reached.END
        assert rhythm.capture.next_txid == 101
    rhythm.insert(1, 3000)
    found = rhythm.round(2 * BUSY_INTERVAL_SECONDS)
    assert found.room is not None
    assert found.room.done
    assert rhythm.capture.next_txid == 102


def test_room_is_made_behind_a_checkpoint_of_the_applications_own(rhythm: Rhythm) -> None:
    """A busy application is inside one most of the time that its WAL is long; that is waited for.

    Seen to fail without the wait: eight attempts within 2 ms, again and again, and a WAL of 1 GB after 5 s.
    """
    rhythm.insert(100, 3000)
    occupied = rhythm.source._checkpointer = Occupied(str(rhythm.path))
    occupied.pragma("page_count")  # a checkpoint does nothing on a connection that has never read
    occupied.times = 20
    assert make_room(rhythm.capture).done
    assert occupied.times == 0
    frames, copied = rhythm.index()
    assert frames == copied
    occupied.close()


def test_no_room_beside_a_reader(rhythm: Rhythm, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader of the application's own is not waited for: one try copies what it lets be copied, one finds out."""
    reader = apsw.Connection(str(rhythm.path))
    begin_read(reader)
    rhythm.insert(200, 3000)
    moves: list[int] = []
    move_pin = rhythm.capture.move_pin

    def counted(*, segments: int) -> bool:
        moves.append(segments)
        return move_pin(segments=segments)

    monkeypatch.setattr(rhythm.capture, "move_pin", counted)
    monkeypatch.setattr(room_module, "_REST_BYTES", 0)
    assert not make_room(rhythm.capture).done
    assert len(moves) == 2
    reader.close()
    assert make_room(rhythm.capture).done


def test_a_pin_that_failed_room_left_on_mark_0_moves_off(rhythm: Rhythm) -> None:
    """Whoever writes next finds the pin gone from mark 0 at the next look: under it nobody can copy a frame.

    Seen to fail when only room that was made counted: the application was twenty times slower until the next one.
    """
    rhythm.insert(100, 3000)
    rhythm.round(0.02, wishes=Wishes(keep=True))
    rhythm.round(0.02)
    assert rhythm.checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE), "everything is copied: the next pin is on mark 0"
    rhythm.writer.execute("BEGIN IMMEDIATE")
    rhythm.clock.advance(BUSY_INTERVAL_SECONDS)
    found = rhythm.beat.round(Wishes())
    rhythm.writer.execute("COMMIT")
    assert found.room is not None
    assert not found.room.done
    rhythm.insert(3)
    assert rhythm.round(0.001).blocking
    assert rhythm.checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE)


def test_a_pin_that_a_checkpoint_overtakes_moves_off_mark_0(rhythm: Rhythm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the last frame is copied between a look and the next pin, that pin is on mark 0, unlike the look says."""
    move_pin = rhythm.capture.move_pin

    def behind_a_checkpoint(*, segments: int) -> bool:
        assert rhythm.checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE)
        return move_pin(segments=segments)

    rhythm.insert(3)
    rhythm.round()
    rhythm.round(0.02)
    monkeypatch.setattr(rhythm.capture, "move_pin", behind_a_checkpoint)
    rhythm.round(0.1)
    assert rhythm.index() == (rhythm.source.index().frames,) * 2
    monkeypatch.undo()
    rhythm.insert(1)
    assert not rhythm.checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE)
    assert rhythm.round(0.001).blocking
    assert rhythm.checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE)


def test_a_commit_beside_a_move_does_not_make_the_next_one_urgent(
    rhythm: Rhythm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With frames left to copy a pin is not on mark 0, whatever is committed while it moves.

    Else it would move at every look beside a busy application.
    """
    move_pin = rhythm.capture.move_pin

    def beside_a_commit(*, segments: int) -> bool:
        moved = move_pin(segments=segments)
        rhythm.insert(1)
        return moved

    rhythm.insert(3)
    rhythm.round()
    monkeypatch.setattr(rhythm.capture, "move_pin", beside_a_commit)
    rhythm.insert(3)
    rhythm.round(0.001)
    rhythm.round(0.02)
    monkeypatch.undo()
    rhythm.checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE)
    copied = rhythm.index()[1]
    rhythm.insert(3)
    assert not rhythm.round(0.001).blocking
    rhythm.checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE)
    assert rhythm.index()[1] == copied


def test_no_room_while_the_wal_is_the_queue(rhythm: Rhythm) -> None:
    """While it is kept, the WAL does not begin anew, however long it is and however long nobody writes."""
    rhythm.round()
    rhythm.insert(1)
    rhythm.round()
    salts = rhythm.salts()
    for _ in range(20):
        rhythm.insert(20, 3000)
        assert rhythm.round(1.1, wishes=Wishes(keep=True)).room is None
        rhythm.checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE)
    assert rhythm.salts() == salts


def test_a_borrowed_pin_does_not_move(rhythm: Rhythm) -> None:
    """While the pin holds a state still for a snapshot, no frame behind it is copied, whatever happens."""
    rhythm.insert(3)
    rhythm.round()
    rhythm.insert(3)
    copied = []
    for _ in range(5):
        rhythm.round(1.1, wishes=Wishes(borrowed=True))
        rhythm.checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE)
        copied.append(rhythm.index()[1])
        rhythm.insert(1)
    assert len(set(copied)) == 1


def test_a_full_segment_keeps_the_pin(rhythm: Rhythm) -> None:
    """Frames that do not fit into memory stay where they are until there is room for them."""
    rhythm.round()
    rhythm.insert(400, 3000)
    rhythm.clock.advance(1)
    found = rhythm.beat.round(Wishes())
    assert found.reached is Reached.FULL
    assert found.unread_bytes > 0
    rhythm.checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)
    before = rhythm.capture.next_txid
    rhythm.capture.seal()
    while rhythm.round().reached is not Reached.END:
        pass
    assert rhythm.capture.next_txid == 401
    assert before < 401


def test_an_idle_database_is_copied(rhythm: Rhythm) -> None:
    """When nobody writes any more, everything is copied and the pin is on mark 0, with nothing left to do."""
    rhythm.insert(5)
    rhythm.until_rest()
    before = Path(f"{rhythm.path}-wal").stat().st_mtime_ns
    for _ in range(5):
        assert rhythm.round(1.1).pause_seconds is None
    assert Path(f"{rhythm.path}-wal").stat().st_mtime_ns == before


def test_the_space_of_a_burst_is_given_back(rhythm: Rhythm) -> None:
    """After a burst that made the WAL long, its disk space is given back once all is at rest."""
    rhythm.round()
    rhythm.insert(600, 3000)
    while rhythm.round(0.01, wishes=Wishes(keep=True)).reached is not Reached.END:
        pass
    assert Path(f"{rhythm.path}-wal").stat().st_size > 4 * ROOM_BYTES
    for _ in range(10):
        rhythm.round(1.1)
    assert Path(f"{rhythm.path}-wal").stat().st_size == 0
    rhythm.insert(1)
    rhythm.round()
    assert rhythm.capture.next_txid == 602


def test_a_burst_that_was_just_copied_is_not_truncated(rhythm: Rhythm) -> None:
    """Copying is news, too: for a second the pin has time to come to mark 0, where alone truncating is allowed."""
    rhythm.round()
    rhythm.insert(600, 3000)
    while rhythm.round(0.01, wishes=Wishes(keep=True)).reached is not Reached.END:
        pass
    rhythm.clock.advance(5)
    rhythm.round(wishes=Wishes(keep=True))
    truncated = []
    for _ in range(4):
        rhythm.round(0.2)
        rhythm.checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE)
        truncated.append(Path(f"{rhythm.path}-wal").stat().st_size == 0)
    assert not any(truncated)
    for _ in range(10):
        rhythm.round(1.1)
    assert Path(f"{rhythm.path}-wal").stat().st_size == 0


def test_a_replaced_file_is_noticed_at_once(rhythm: Rhythm, tmp_path: Path) -> None:
    """Another file at the path is seen by the next look, not by the next move of the pin."""
    rhythm.insert(1)
    rhythm.round()
    assert not rhythm.round(0.001).replaced
    rhythm.path.rename(tmp_path / "aside")
    assert rhythm.round(0.001).replaced


def test_a_file_written_to_past_sqlite_is_noticed(rhythm: Rhythm) -> None:
    """`cp` over the database keeps its inode; what stands in page 1 then is none of the states that were committed."""
    rhythm.insert(5)
    rhythm.until_rest()
    rhythm.insert(5)
    assert not rhythm.round().replaced
    raw = bytearray(rhythm.path.read_bytes())
    raw[60:64] = b"mine"  # the user version
    with rhythm.path.open("r+b") as file:
        file.write(raw)
    assert rhythm.round().replaced


def test_checkpoints_never_look_like_a_replaced_file(rhythm: Rhythm) -> None:
    """Whatever of the WAL is copied into the file when, by whomever, it is the same database."""
    for number in range(60):
        rhythm.writer.execute(f"CREATE TABLE u{number} (n)")  # each changes page 1
        if number % 3 == 0:
            rhythm.checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE)
        assert not rhythm.round(0.05 * (number % 5)).replaced
        if number % 7 == 0:
            rhythm.checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE)
        assert not rhythm.round(0.001).replaced


@pytest.mark.parametrize(("content", "pages_mib"), [("zeroblob", 32), ("randomblob", 6)])
def test_a_segment_is_full_by_what_it_holds(tmp_path: Path, content: str, pages_mib: int) -> None:
    """Reading stops when a segment takes its bytes in memory: pages that pack well are few bytes, up to 32 MiB.

    Seen to fail when a segment was full by its pages: 6 MiB of either.
    """
    limit_bytes = 6 << 20
    rhythm = Rhythm(tmp_path / "app.db", segment_bytes=limit_bytes)
    for _ in range(36):
        rhythm.writer.execute(f"INSERT INTO t VALUES (NULL, {content}(1048576))")
    assert rhythm.capture.read() is Reached.FULL
    segment = rhythm.capture.open_segment
    assert segment is not None
    assert pages_mib << 20 <= segment.raw_bytes < (pages_mib << 20) + limit_bytes  # as much is read at once
    assert segment.held_bytes < 2 * limit_bytes
    rhythm.source.close()


def test_the_largest_segment_can_be_written() -> None:
    """However large `segment_bytes` and however small the transactions, reading ahead stays within the format."""
    (setting,) = [row for row in SETTINGS if row.name == "segment_bytes"]
    assert setting.high is not None
    assert ROOM_SEGMENTS * parse_size(setting.high) // 512 <= MAX_TRANSACTIONS


def test_a_state_is_held_beside_commits_of_more_than_a_segment(rhythm: Rhythm, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a snapshot is owed, what is read on the way to its pin needs no room: it is forgotten.

    Seen to fail on a busy machine: between two steps more was committed than a segment holds, no pin was had any more,
    and the session began anew. With segments to be kept, memory comes first.
    """
    committed = []

    def begin_late(pin: apsw.Connection) -> None:
        rhythm.writer.set_busy_timeout(0)
        with contextlib.suppress(apsw.BusyError):
            rhythm.insert(1, 2 * SEGMENT_BYTES // 3)
            rhythm.insert(1, 2 * SEGMENT_BYTES // 3)
            committed.append(2)
        begin_read(pin)

    monkeypatch.setattr(capture_module, "begin_read", begin_late)
    pinned = rhythm.capture.pin_state(skip=True)
    assert pinned is not None
    assert len(committed) == 5
    assert pinned.txid == rhythm.capture.next_txid - 1 == sum(committed)
    assert pinned.image.read(1, pinned.table.pages) == rhythm.writer.serialize("main")
    pinned.release()
    assert rhythm.capture.pin_state(skip=False) is None
