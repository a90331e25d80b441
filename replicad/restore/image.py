"""The temporary file in which a database is put together, beside the place where it will stand.

It is made at its full size at once, so that the pages nobody writes (the lock page, and what a growing
database skipped) are zeros. Threads write disjoint parts of it at the same time; now and then one of them
stays behind to see that the disk gets to work, which would otherwise begin when the last byte has come.

Of a large database, chunks go past the page cache where the file system can do that (`write_whole`): copying a GiB
through it takes as much of the processor as unpacking it. Whatever else is written leaves the page cache as soon as it
is finished. So a restore takes a few dozen MiB of it, the same ones again and again, and not as many as the database
has: in a virtual machine, memory that is touched for the first time costs ten times what writing into it does, and in a
small container the application is pushed out of it.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections import deque
from contextlib import contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING

import xxhash

from replicad.errors import FileUnusable, NoSpace
from replicad.host.files import free_bytes, stamp_of
from replicad.host.interruptible import Interrupted
from replicad.restore.rows import page_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from threading import Event

    from replicad.host.files import FileStamp
    from replicad.restore.settled import Frames

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FLUSH_BYTES = 32 << 20  # written between two of these visits to the disk
_LONG_BYTES = 64 << 10  # in one go: shorter writes are scattered, and the disk has less to do when it sees them all
_DIRECT_BYTES = 64 << 20  # what is smaller stays in the page cache, for the application's first queries
_ALIGNMENT_BYTES = 4096  # of the place, the length and the memory of a write past the page cache
_READ_AT_ONCE = 64  # places in the file
_NEW_MODE = 0o644  # less the umask: what SQLite gives a new database


class Image:
    """A temporary file; whoever chose its name removes it (`Place.release`).

    `create` comes first; `close` last, also when `create` failed or was cancelled.

    Args:
        path: where it is made.
        size_bytes: of the database.
        page_size: in bytes.
    """

    def __init__(self, path: Path, *, size_bytes: int, page_size: int) -> None:
        self.path = path
        self.size_bytes = size_bytes
        self.page_size = page_size
        self.spare_bytes = 0  # what its disk had beside it when it was made
        self._descriptor = -1
        self._direct = -1  # the same file, past the page cache; -1: that is not possible, or not worth it
        self._unflushed_bytes = 0  # set back without a lock: it only says about when
        # Writes to one file take turns in the kernel anyway; threads that queue here, once for many small writes, do
        # not hand Python's own lock to and fro with each of them (a third of the time of a scattered restore).
        self._writing = threading.Lock()
        self._flushing = threading.Lock()
        self._ends: dict[int, int] = {}  # hash by page number, of what was written past the page cache
        self._finished: deque[tuple[int, int]] = deque()  # (offset, bytes) that may leave the page cache

    def create(self) -> None:
        """Make the file, full of zeros and without taking room yet.

        Raises:
            NoSpace: there is not enough room to fill it.
            FileUnusable: something has its name, or it cannot be made for another reason.
        """
        room_bytes = free_bytes(self.path.parent)
        if self.size_bytes > room_bytes:
            raise NoSpace(path=self.path.parent, needed_bytes=self.size_bytes, free_bytes=room_bytes)
        self.spare_bytes = room_bytes - self.size_bytes
        with self._problems("created"):
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _NEW_MODE)
            os.ftruncate(self._descriptor, self.size_bytes)
        if self.size_bytes >= _DIRECT_BYTES and hasattr(os, "O_DIRECT"):
            with suppress(OSError):  # a file system that cannot: everything goes through the page cache
                self._direct = os.open(self.path, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)

    def adopt(self, descriptor: int) -> None:
        """Take a database that stands already instead of a new file, and make it as long as this image.

        Whoever opened the descriptor closes it.

        Raises:
            NoSpace: the disk is full.
            FileUnusable: it cannot be made longer.
        """
        self._descriptor = descriptor
        with self._problems("made longer"):
            if os.fstat(descriptor).st_size < self.size_bytes:
                os.ftruncate(descriptor, self.size_bytes)

    @property
    def pages(self) -> int:
        """Size of the database in pages."""
        return self.size_bytes // self.page_size

    def write_runs(self, first: int, images: bytes | memoryview, runs: Iterable[tuple[int, int]]) -> None:
        """Write some of the page images in a row, the first one of which is that of page `first` (0-based).

        Args:
            first: index of the page.
            images: page images.
            runs: (index, count) of the pages to be written, all among them.

        Raises:
            NoSpace: the disk is full.
            FileUnusable: it cannot be written for another reason.
        """
        size = self.page_size
        view = memoryview(images)
        with self._writing, self._problems("written"):
            for index, count in runs:
                self._write(index * size, [view[(index - first) * size : (index - first + count) * size]])
        self._flush()

    @property
    def is_direct(self) -> bool:
        """Whether `write_whole` may do something."""
        return self._direct >= 0

    def write_whole(self, first: int, images: memoryview) -> bool:
        """Write page images in a row past the page cache, and take note of both ends of them.

        What the page cache holds of these pages, written earlier, is written over.

        Args:
            first: index of the first page, 0-based.
            images: page images, in memory that begins at a page of it.

        Returns:
            False when this cannot be done here; it has to be written otherwise then, and nothing is lost.

        Raises:
            NoSpace: the disk is full.
            FileUnusable: it cannot be written for another reason.
        """
        offset, length = first * self.page_size, len(images)
        if self._direct < 0 or offset % _ALIGNMENT_BYTES or length % _ALIGNMENT_BYTES:
            return False
        with self._problems("written"):
            try:
                written = os.pwrite(self._direct, images, offset)
            except OSError as error:
                if error.errno == errno.EINVAL:  # a disk with larger blocks
                    return False
                raise
            if written < length:
                self._write_rest(offset + written, bytes(images[written:]))
        for at in (0, length - self.page_size):
            pgno = (offset + at) // self.page_size + 1
            self._ends[pgno] = xxhash.xxh3_64_intdigest(images[at : at + self.page_size])
        return True

    def check_ends(self, stop: Event) -> None:
        """Look whether the ends of all that went past the page cache are where they should be, and not elsewhere.

        Once all is written: a read that comes between writes waits for them, ten times as long as it takes.

        Raises:
            FileUnusable: the disk does not give back what was written.
            Interrupted: the event was set.
        """
        size = self.page_size
        os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # or a MiB is read with each of them
        rows = page_rows(self._ends.items())
        while batch := list(islice(rows, _READ_AT_ONCE)):
            if stop.is_set():
                raise Interrupted
            for pgno, expected in batch:  # so that the disk has all of them to do at once
                os.posix_fadvise(self._descriptor, (pgno - 1) * size, len(expected) * size, os.POSIX_FADV_WILLNEED)
            for pgno, expected in batch:
                self._check_row((pgno - 1) * size, expected)

    def write_frames(self, frames: Frames, block: bytes | memoryview, first_frame: int) -> None:
        """Write the frames of a block; `first_frame` is the number of the block's first one.

        They may be written over what went past the page cache.

        Raises:
            NoSpace: the disk is full.
            FileUnusable: it cannot be written for another reason.
        """
        size = self.page_size
        view = memoryview(block)
        rows = [
            ((pgno - 1) * size, [view[(n - first_frame) * size : (n - first_frame + 1) * size] for n in numbers])
            for pgno, numbers in page_rows(frames)
        ]
        with self._writing, self._problems("written"):
            for offset, images in rows:
                self._write(offset, images)
        for pgno, _ in frames:
            self._ends.pop(pgno, None)
        self._flush()

    def finished(self, runs: Iterable[tuple[int, int]]) -> None:
        """Let pages, (index, count) of those in a row, leave the page cache when they have reached the disk.

        They will be neither written nor read again. The last ones stay, a small database as a whole.
        """
        size = self.page_size
        self._finished.extend((index * size, n * size) for index, n in runs if n * size >= _LONG_BYTES)

    def read(self, offset: int, buffer: bytearray | memoryview) -> int:
        """Read into the buffer from a place in the file; return how many bytes there were.

        Raises:
            FileUnusable: it cannot be read.
        """
        with self._problems("read back"):
            return os.preadv(self._descriptor, [buffer], offset)

    def sync(self) -> None:
        """Wait until everything written survives a power cut.

        Raises:
            NoSpace: the disk is full.
            FileUnusable: it cannot be synced.
        """
        with self._problems("synced"):
            os.fsync(self._descriptor)

    def stamp(self) -> FileStamp | None:
        """Return what the synced file is known by as long as nobody writes into it; None: nothing sure.

        Raises:
            FileUnusable: the disk does not say.
        """
        with self._problems("looked at"):
            return stamp_of(self._descriptor, patient=self.size_bytes >= _DIRECT_BYTES)  # reading it takes longer

    def take_over(self, old: Path) -> None:
        """Take the permissions of the file that this one replaces, and its owner as far as that is allowed."""
        with self._problems("given the old permissions"), suppress(FileNotFoundError):
            found = old.stat()
            with suppress(PermissionError):
                os.fchown(self._descriptor, found.st_uid, found.st_gid)
            os.fchmod(self._descriptor, stat.S_IMODE(found.st_mode))

    def close(self) -> None:
        """Close the file; it stays where it is. Safe to repeat."""
        opened, self._descriptor, self._direct = (self._descriptor, self._direct), -1, -1
        for descriptor in opened:
            if descriptor >= 0:
                os.close(descriptor)

    def remove(self) -> None:
        """Close and remove the file, to give its room to another attempt."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _write(self, offset: int, images: Sequence[bytes | memoryview]) -> None:
        length = sum(map(len, images))
        written = os.pwritev(self._descriptor, images, offset)
        if written < length:  # the disk is nearly full, or a signal came: the rest says which
            self._write_rest(offset + written, b"".join(images)[written:])
        if length >= _LONG_BYTES:
            self._unflushed_bytes += length

    def _flush(self) -> None:
        if self._unflushed_bytes >= _FLUSH_BYTES and self._flushing.acquire(blocking=False):
            try:
                self._unflushed_bytes = 0
                finished = [self._finished.popleft() for _ in range(len(self._finished))]
                with self._problems("written"):
                    os.fdatasync(self._descriptor)
                    for offset, n_bytes in finished:
                        os.posix_fadvise(self._descriptor, offset, n_bytes, os.POSIX_FADV_DONTNEED)
            finally:
                self._flushing.release()

    def _check_row(self, begin: int, expected: Sequence[int]) -> None:
        """Compare the hashes of pages in a row, from this place in the file on, with what they have to be."""
        size = self.page_size
        found = memoryview(bytearray(len(expected) * size))
        read_bytes = self.read(begin, found)
        for at, page_hash in zip(range(0, len(found), size), expected, strict=True):
            if at >= read_bytes or xxhash.xxh3_64_intdigest(found[at : at + size]) != page_hash:
                raise FileUnusable(
                    path=self.path,
                    operation="read back",
                    found=f"other bytes at {begin + at} than were written there",
                    hint="Check the disk: it does not keep what is written to it.",
                )

    def _write_rest(self, offset: int, rest: bytes) -> None:
        while rest:
            written = os.pwrite(self._descriptor, rest, offset)
            offset, rest = offset + written, rest[written:]

    @contextmanager
    def _problems(self, operation: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise disk_error(self.path, operation, error, needed_bytes=self.size_bytes) from error


def disk_error(path: Path, operation: str, error: OSError, *, needed_bytes: int) -> NoSpace | FileUnusable:
    """Return the error of ours that says what the operating system said."""
    if error.errno in _NO_ROOM:
        return NoSpace(path=path.parent, needed_bytes=needed_bytes, free_bytes=free_bytes(path.parent))
    hint = "Check that the folder can be written to by this user, and that its disk works."
    return FileUnusable(path=path, operation=operation, found=error.strerror or repr(error), hint=hint)
