"""Older versions of pages: what segments that refer to them need before they can be unpacked.

A chain is gone through from its newest segment to its oldest (see `settled`), so which versions are needed is known
before the object that holds them turns up: a segment that refers to a page asks for it, and the next older segment
that wrote the page, or the snapshot, answers. A segment that answers and refers to pages itself asks in its turn. What
answers without asking is unpacked at once; the rest waits until the snapshot has answered, and is then unpacked from
the oldest to the newest, each version being let go when nobody needs it any more.

Versions stand in memory as far as there is room, and else in a file without a name beside the database.
"""

from __future__ import annotations

import os
import threading
from array import array
from contextlib import contextmanager
from typing import TYPE_CHECKING, NewType, Protocol

from replicad.host.nameless import open_nameless
from replicad.restore.image import disk_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from replicad.position import TXID
    from replicad.segment import SegmentIndex

Version = NewType("Version", int)
"""Names the content of a page as of some transaction."""

Answers = list[tuple[int, Version]]
"""(number of the frame in its segment, version that it is), by falling number."""


class Keeper(Protocol):
    """Keeps versions; see Shelf."""

    def reserve(self, version: Version) -> None:
        """Say that somebody will take it, once more."""
        ...

    def put(self, version: Version, image: bytes | bytearray | memoryview | None) -> None:
        """Keep the content of a page; None: zeros."""
        ...


class Wanted:
    """The versions that are asked for and not yet found. Pure: goes by indexes alone.

    Args:
        shelf: is told of pages that are known to be zeros.
    """

    def __init__(self, shelf: Keeper) -> None:
        self.pages: dict[int, Version] = {}  # by page number: the version that the next older writer made
        self._shelf = shelf
        self._bound = -1  # no page above it is asked for; -1: not known
        self._count = 0

    def answer(self, index: SegmentIndex, after: TXID, through: TXID) -> Answers:
        """Return what the transactions behind `after` up to `through` answer, and ask for it no more."""
        first = index.header.first_txid
        end = sum(transaction.frames for transaction in index.transactions[: through + 1 - first])
        answers: Answers = []
        for transaction in reversed(index.transactions[after + 1 - first : through + 1 - first]):
            if not self.pages:
                break
            self.cut(transaction.pages)
            begin = end - transaction.frames
            for frame in range(end - 1, begin - 1, -1):
                version = self.pages.pop(index.pgnos[frame], None)
                if version is not None:
                    answers.append((frame, version))
            end = begin
        return answers

    def ask(self, index: SegmentIndex) -> array[int]:
        """Ask for the pages that a segment refers to; return their versions in order."""
        versions: list[Version] = []
        for pgno in index.references:
            version = self.pages.get(pgno)
            if version is None:
                version = self.pages[pgno] = Version(self._count)
                self._count += 1
            self._shelf.reserve(version)
            versions.append(version)
        self._bound = max(self._bound, max(index.references, default=-1))
        return array("I", versions)

    def cut(self, pages: int) -> None:
        """Note that the database had only so many pages: those behind it came back as zeros, if nobody wrote them."""
        if self._bound > pages:
            for pgno in [pgno for pgno in self.pages if pgno > pages]:
                self._shelf.put(self.pages.pop(pgno), None)
            self._bound = max(self.pages, default=-1)


class Shelf:
    """Where versions stand until they are needed. Threads may use it at the same time.

    Args:
        folder: for the file, on the disk that holds the database.
        page_size: in bytes.
        memory_bytes: for those that are kept in memory.
    """

    def __init__(self, folder: Path, *, page_size: int, memory_bytes: int) -> None:
        self._folder = folder
        self._page_size = page_size
        self._most = memory_bytes // page_size
        self._lock = threading.Lock()
        self._readers: dict[Version, int] = {}  # how many will still take it
        self._memory: dict[Version, bytes] = {}
        self._slots: dict[Version, int] = {}  # of those in the file
        self._free: list[int] = []
        self._file = -1

    def reserve(self, version: Version) -> None:
        """Say that somebody will take it, once more."""
        self._readers[version] = self._readers.get(version, 0) + 1

    def put(self, version: Version, image: bytes | bytearray | memoryview | None) -> None:
        """Keep the content of a page; None: zeros.

        Raises:
            NoSpace: the disk is full.
            FileUnusable: there is no room in memory, and the file cannot be written.
        """
        content = bytes(self._page_size) if image is None else bytes(image)
        with self._lock:
            if version in self._memory or version in self._slots:
                return  # an object was fetched a second time
            if len(self._memory) < self._most:
                self._memory[version] = content
                return
            slot = self._free.pop() if self._free else len(self._slots)
            self._slots[version] = slot
            with self._problems("written"):
                if self._file < 0:
                    self._file = open_nameless(self._folder)
                written = 0
                while written < len(content):
                    written += os.pwrite(self._file, content[written:], slot * self._page_size + written)

    def take(self, versions: Sequence[int]) -> bytes:
        """Return contents one after another; those that nobody else will take are let go. One not put is left out.

        Raises:
            FileUnusable: the file cannot be read.
        """
        return b"".join(self._take(Version(version)) for version in versions)

    def close(self) -> None:
        """Let go of everything."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._memory.clear()

    def _take(self, version: Version) -> bytes:
        with self._lock:
            self._readers[version] -= 1
            last = not self._readers[version]
            if last:
                del self._readers[version]
            slot = self._slots.get(version)
            if slot is None:
                return (self._memory.pop(version, b"")) if last else self._memory.get(version, b"")
            with self._problems("read"):
                content = os.pread(self._file, self._page_size, slot * self._page_size)
            if last:
                self._free.append(self._slots.pop(version))
            return content

    @contextmanager
    def _problems(self, operation: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            path = self._folder / "(a temporary file)"
            raise disk_error(path, operation, error, needed_bytes=self._page_size) from error
