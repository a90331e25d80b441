"""The application's database as capture sees it: its WAL's index, its frames, two pins and a write lock.

What SQLite guarantees (wal.c), and what all of this rests on: a connection inside a read transaction
holds one of five read marks. On mark k > 0 at frame R a checkpoint may copy frames up to R into the
database file, but nobody may reset the WAL. On mark 0 (taken when every frame is already copied) nobody
may copy anything, and a writer may reset the WAL once, but not again, because a second reset needs
everything copied first. So while a pin is held, no frame that its owner has not read can disappear.

The database file itself is read through SQLite's own VFS: closing a raw descriptor on it would drop every
POSIX lock this process holds, SQLite's close knows to wait (docs/decisions/0002).
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import apsw

from replicad.errors import DatabaseUnusable
from replicad.host.files import FileIdentity, stamp_at
from replicad.sqlite.connection import READ_SOMETHING, connect, translated
from replicad.sqlite.wal_file import WALFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from replicad.host.files import FileStamp
    from replicad.wal import Frames

_INDEX_PATIENCE_SECONDS = 5.0
_INDEX_PAUSE_SECONDS = 0.001
_WRITER_VERSION_OFFSET = 96  # in the database header
_FORM = (16, 4)  # offset and length in the database header: page size, and whether it is written by way of a WAL
_LOCK_PAUSE_SECONDS = 0.0002
_CHECKPOINT_PAUSE_SECONDS = 0.001
_OPTIMISTIC_ATTEMPTS = 10
_MANY_FRAMES = 64  # committed since the pin was moved last: writers are at work
_EXACT_PIN_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """What the shared index of the WAL says."""

    frames: int  # committed frames in the WAL
    backfilled: int  # how many of them are in the database file already
    salts: bytes  # of the WAL these numbers belong to; b"" when there is none

    @property
    def uncopied(self) -> int:
        """How many committed frames are not in the database file yet."""
        return self.frames - self.backfilled


class Source:
    """One open database. Not safe for concurrent use; calls may come from different threads one at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.wal = WALFile(path)
        self._identity = _identity(path)
        self._connections: list[apsw.Connection] = []
        self.may_be_on_zero = True  # whether the pin that is held may be on mark 0, as far as it was looked at
        self._next_may_be_on_zero = True
        self._last_hold = Index(frames=0, backfilled=0, salts=b"")  # what the index said then
        try:
            self._observer = self._connect(busy_timeout_seconds=0)
            self._observer.pragma("synchronous", "off")  # it copies nothing: see is_checkpointing
            self._pin = self._connect()
            self._spare = self._connect()
            self._checkpointer = self._connect()
            self._writer = self._connect(may_lock=True)
            self.page_size = int(self._observer.pragma("page_size"))
            self.is_wal = str(self._observer.pragma("journal_mode")) == "wal"
            self._file = apsw.VFSFile("", os.fspath(path), [apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READONLY, 0])
            self._form = self._read_form()
            self._refuse_mixture()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let every pin go and close; the WAL stays as it is. Safe to repeat."""
        while self._connections:
            self._connections.pop().close()
        if hasattr(self, "_file"):
            self._file.xClose()
        self.wal.close()

    # --- looking -------------------------------------------------------------------------------

    def index(self) -> Index:
        """Return the committed end of the WAL; costs a few microseconds, whatever the WAL's size.

        Raises:
            DatabaseUnusable: SQLite's shared index stayed locked.
        """
        deadline = time.monotonic() + _INDEX_PATIENCE_SECONDS
        while time.monotonic() < deadline:
            if (index := self.glance()) is not None:
                return index
            time.sleep(_INDEX_PAUSE_SECONDS)
        raise DatabaseUnusable(
            path=self.path,
            expected="a WAL index that can be read",
            found=f"one that stayed busy for {_INDEX_PATIENCE_SECONDS:g} s",
            hint="Another process holds a lock on the -shm file; see which with `lsof`.",
        )

    def glance(self) -> Index | None:
        """Return the committed end of the WAL, None when it cannot be had at this instant; never waits."""
        return glance(self._observer, self.wal)

    def read(self, first: int, count: int, salts: bytes) -> Frames:
        """Return committed frames, whose images are good until the next call.

        Raises:
            SaltsMoved: the WAL was reset since the look at the index.
        """
        return self.wal.read(first, count, page_size=self.page_size, salts=salts)

    def was_replaced(self) -> bool:
        """Return whether the path now names another file, none, or an emptied one."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return True
        return FileIdentity.told_by(found) != self._identity or found.st_size == 0 or self.wal.was_replaced()

    def stamp(self) -> FileStamp | None:
        """Return what the database file is known by as long as nobody writes into it; None: nothing sure."""
        found = stamp_at(self.path)
        return found if found is not None and found.identity == self._identity else None

    def was_converted(self) -> bool:
        """Return whether a database that is not in WAL mode was given another page size, or switched to WAL mode."""
        return self._read_form() != self._form

    def size_bytes(self) -> int:
        """Return the size of the database file, without what is only in the WAL."""
        return int(self._file.xFileSize())

    def last_writer(self) -> int:
        """Return the version number of the SQLite that wrote the database last, as far as it is in the file."""
        return int.from_bytes(self.read_file(_WRITER_VERSION_OFFSET, 4), "big")

    def read_file(self, offset: int, length: int) -> bytes:
        """Return bytes of the database file, padded with zeros behind its end."""
        there = max(0, min(length, self.size_bytes() - offset))
        found = self._file.xRead(there, offset) if there else b""
        return found + bytes(length - there)

    # --- pins ----------------------------------------------------------------------------------

    def hold_exactly(self) -> Index:
        """Take the first pin, and return the index of exactly the state it sees.

        Raises:
            DatabaseUnusable: writers neither paused for the moment this takes nor let the write lock go.
        """
        for _ in range(_OPTIMISTIC_ATTEMPTS):
            if (index := self._try_hold()) is not None:
                return index
        with self.write_lock(timeout_seconds=_EXACT_PIN_TIMEOUT_SECONDS) as locked:
            if locked and (index := self._try_hold()) is not None:
                return index
        raise DatabaseUnusable(
            path=self.path,
            expected=f"a moment without a commit, or the write lock, within {_EXACT_PIN_TIMEOUT_SECONDS:g} s",
            found="an application that writes without a pause",
            hint="It is tried again; if this goes on, look for a transaction that never ends.",
        )

    def hold(self) -> None:
        """Take the first pin, of whatever state is the newest."""
        self.may_be_on_zero = True
        try:
            _begin(self._pin)
        except apsw.BusyError:
            self.release()
            raise

    def hold_next(self) -> None:
        """Take the next pin while the old one is still held."""
        before = self.index()
        with self._low_marks_taken(before):
            _begin(self._spare)
        try:
            after = self.index()
        except BaseException:
            self.drop_next()
            raise
        self._next_may_be_on_zero = _may_be_on_zero(before, after)
        self._last_hold = after

    def release_previous(self) -> None:
        """Let the old pin go. Everything up to the next pin's mark must have been read by now."""
        self._pin.execute("ROLLBACK")
        self._pin, self._spare = self._spare, self._pin
        self.may_be_on_zero = self._next_may_be_on_zero

    def drop_next(self) -> None:
        """Give the next pin up; the old one stays."""
        self._spare.execute("ROLLBACK")

    def release(self) -> None:
        """Let every pin go: from now on frames may disappear unread."""
        for connection in (self._pin, self._spare):
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def page_count(self) -> int:
        """Return the database's size in pages, as the held pin sees it."""
        return int(self._pin.pragma("page_count"))

    def open_pin(self) -> apsw.Connection:
        """Return a further connection for a pin of its own; give it back to `close_pin`."""
        return self._connect()

    def close_pin(self, connection: apsw.Connection) -> None:
        """End a further pin."""
        connection.close()
        self._connections.remove(connection)

    # --- checkpoints ---------------------------------------------------------------------------

    def backfill(self, *, patience_seconds: float = 0.0) -> bool:
        """Copy frames up to the oldest pin into the database file (PASSIVE); return whether all are there now.

        While somebody else is checkpointing it cannot be done; that may be waited for.
        """
        deadline = time.monotonic() + patience_seconds
        while True:
            try:
                frames, backfilled = self._checkpointer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            except (apsw.BusyError, apsw.LockedError):
                if time.monotonic() >= deadline:
                    return False
                time.sleep(_CHECKPOINT_PAUSE_SECONDS)
            else:
                return bool(frames == backfilled)

    def is_checkpointing(self) -> bool:
        """Return whether another connection is inside a checkpoint; copies nothing.

        It is asked by beginning one: that is refused while another's goes on. Ours was interrupted before it began,
        and SQLite looks at that behind the lock and before the first frame.
        """
        self._observer.interrupt()
        try:
            self._observer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.InterruptError:  # there would have been something to copy
            return False
        except (apsw.BusyError, apsw.LockedError):
            return True
        return False

    def truncate(self) -> bool:
        """Give the WAL's disk space back; only with the pin on mark 0. Return whether it was done."""
        self._checkpointer.set_busy_timeout(0)
        try:
            self._checkpointer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except (apsw.BusyError, apsw.LockedError):
            return False
        finally:
            self._checkpointer.set_busy_timeout(5000)
        return True

    @contextmanager
    def write_lock(self, *, timeout_seconds: float) -> Iterator[bool]:
        """Keep writers out while the block runs; yields False when the lock could not be had in time.

        SQLite's lock is not fair: beside a writer that begins again at once, only frequent tries find the gap
        between two of its transactions, and SQLite's own busy handler sleeps up to 100 ms between tries.
        """
        if self._writer.in_transaction:  # they are kept out already
            yield True
            return
        if not self.freeze(timeout_seconds=timeout_seconds):
            yield False
            return
        try:
            yield True
        finally:
            self.thaw()

    def freeze(self, *, timeout_seconds: float) -> bool:
        """Keep writers out until `thaw`; readers go on. Return False when the lock could not be had in time."""
        deadline = time.monotonic() + timeout_seconds
        self._writer.set_busy_timeout(0)
        while not self._writer.in_transaction:
            try:
                self._writer.execute("BEGIN IMMEDIATE")
            except apsw.BusyError:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(_LOCK_PAUSE_SECONDS)
        return True

    def thaw(self) -> None:
        """Let writers go on. Safe to repeat."""
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")

    def _refuse_mixture(self) -> None:
        """Raise when the file was replaced while it was opened: what is open may then be of either."""
        if _identity(self.path) != self._identity:
            raise DatabaseUnusable(
                path=self.path, expected="one file", found="another one a moment later", hint="It is tried again."
            )

    def _read_form(self) -> bytes:
        offset, length = _FORM
        return self.read_file(offset, length)

    def _try_hold(self) -> Index | None:
        before = self.index()
        _begin(self._pin)
        after = self.index()
        if (before.frames, before.salts) == (after.frames, after.salts):
            self.may_be_on_zero = _may_be_on_zero(before, after)
            return after
        self._pin.execute("ROLLBACK")
        return None

    @contextmanager
    def _low_marks_taken(self, index: Index) -> Iterator[None]:
        """Have a pin that begins inside the block come to stand on a high mark, where writers are at work.

        A writer looks for a mark from the lowest on, and so does its automatic checkpoint, at each commit of a long
        WAL: a pin on the first one costs every commit a lock that is refused, and two more to set another mark.
        """
        rungs = []
        last = self._last_hold.frames if self._last_hold.salts == index.salts else 0
        if index.frames - last >= _MANY_FRAMES:  # 0.1 ms is too much for a commit now and then
            rungs = [each for each in (self._checkpointer, self._writer) if not each.in_transaction]
        try:
            for rung in rungs:  # while writers write, each read transaction finds a newer state, and takes a new mark
                with suppress(apsw.BusyError):
                    _begin(rung)
            yield
        finally:
            for rung in rungs:
                if rung.in_transaction:
                    rung.execute("ROLLBACK")

    def _connect(self, *, busy_timeout_seconds: float = 5.0, may_lock: bool = False) -> apsw.Connection:
        connection = connect(self.path, busy_timeout_seconds=busy_timeout_seconds, may_lock=may_lock)
        self._connections.append(connection)
        return connection


def glance(observer: apsw.Connection, wal: WALFile) -> Index | None:
    """Return the committed end of a WAL, None when it cannot be had at this instant; never waits.

    The header is read before and after the index. A writer that resets the WAL writes the index first,
    then the header, then its frames: with equal headers around the look, the numbers belong to them.
    """
    before = wal.header()
    try:
        frames, backfilled = observer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
    except apsw.BusyError:  # the index is being rewritten
        return None
    after = wal.header()
    if before != after:
        return None
    return Index(frames=max(frames, 0), backfilled=max(backfilled, 0), salts=after.salts if after else b"")


def begin_read(connection: apsw.Connection) -> None:
    """Begin a read transaction that sees the newest committed state from now on."""
    _begin(connection)


def _begin(connection: apsw.Connection) -> None:
    connection.execute("BEGIN")
    try:
        connection.execute(READ_SOMETHING).fetchall()
    except BaseException:  # else the next attempt would find a transaction open, and so would every one after it
        connection.execute("ROLLBACK")
        raise


def _may_be_on_zero(before: Index, after: Index) -> bool:
    """Return whether a pin that was taken between two looks may be on mark 0: when everything was copied.

    Within one WAL neither number is ever taken back: what was left to copy behind the pin was so when it was taken.
    """
    return before.salts != after.salts or after.backfilled >= before.frames


def _identity(path: Path) -> FileIdentity:
    with translated(path):
        return FileIdentity.told_by(path.stat())
