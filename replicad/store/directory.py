"""A folder as an object store: `file:///mnt/backup`, and the target of `replicad copy`.

An object is a file below the root, under its key. It is written under a name that no key can have
(`.unfinished/…`), flushed, and only then given its own name, so a reader or a crash sees all of it or
nothing. A link fails when the name is taken, which makes `create` atomic without a lock.

A root that is not there holds no objects, and the first write makes it. When not even the folder above it
is there, something is not mounted: that is a store out of reach, never an empty one.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from replicad.errors import ConditionalWritesUnsupported, ObjectExists, ObjectMissing, StoreRefused, StoreUnreachable
from replicad.host.threads import Threads
from replicad.store.directory_errors import NO_LINKS, as_store_error
from replicad.store.directory_walk import UNFINISHED, is_key, walk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from io import FileIO

    from replicad.store.into import Rooms
    from replicad.store.protocol import StoredObject

T = TypeVar("T")

_ABANDONED_SECONDS = 24 * 3600.0  # an unfinished file this old belongs to a process that died
_BATCH_ROWS = 1_000
_PLACING_ATTEMPTS = 20  # an emptied folder can be removed between making it and placing a file in it


class DirectoryStore:
    """Objects as files below a folder of any local or mounted file system.

    `threads` bounds how many operations block on the file system at once.
    """

    def __init__(self, root: Path, *, threads: int = 8) -> None:
        self.url = f"file://{root}"
        self._root = root
        self._threads = Threads("store", threads)
        self._swept = False

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """Return the bytes [start, stop) of an object, see `ObjectStore.get`."""
        return await self._in_thread("get", key, lambda: self._read(key, start, stop))

    async def get_into(self, key: str, rooms: Rooms) -> memoryview:
        """Return a whole object, in a room if it can be, see `read_into`."""
        return await self._in_thread("get", key, lambda: self._read_into(key, rooms))

    async def put(self, key: str, body: bytes) -> None:
        """Store an object, see `ObjectStore.put`."""
        await self._in_thread("put", key, lambda: self._write(key, body, os.replace), needed_bytes=len(body))

    async def put_stream(self, key: str, parts: AsyncIterator[bytes]) -> int:
        """Store an object of unknown size, see `ObjectStore.put_stream`."""
        self._path(key)
        size_bytes = 0
        unfinished = await self._in_thread("put", key, self._begin)
        try:
            async for part in parts:
                await self._in_thread("put", key, functools.partial(unfinished.write, part), needed_bytes=len(part))
                size_bytes += len(part)
            await self._in_thread("put", key, lambda: self._finish(unfinished, key, os.replace))
        finally:
            await self._in_thread("put", key, lambda: _discard(unfinished))
        return size_bytes

    async def create(self, key: str, body: bytes) -> None:
        """Store an object if its key is free, see `ObjectStore.create`."""
        await self._in_thread("create", key, lambda: self._write(key, body, os.link), needed_bytes=len(body))

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[StoredObject]:
        """Iterate over objects in key order, see `ObjectStore.list`; other files are passed over."""
        rows = walk(self._root, prefix, after)

        def following() -> list[StoredObject]:
            self._look_for_mount()
            return list(itertools.islice(rows, _BATCH_ROWS))

        while batch := await self._in_thread("list", prefix, following):
            for row in batch:
                yield row

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, and folders that become empty, see `ObjectStore.delete`."""
        paths = [self._path(key) for key in keys]
        await self._in_thread("delete", f"{len(paths)} objects", lambda: self._remove(paths))

    async def close(self) -> None:
        """End the threads, once what they do is done; no file stays open between operations."""
        await self._threads.close()

    async def _in_thread(self, operation: str, key: str, work: Callable[[], T], *, needed_bytes: int = 0) -> T:
        def translated() -> T:
            try:
                return work()
            except OSError as error:
                what = f"{operation} {key}"
                raise as_store_error(error, root=self._root, operation=what, needed_bytes=needed_bytes) from error

        return await self._threads.run(translated)

    def _path(self, key: str) -> Path:
        if not is_key(key):
            raise StoreRefused(store=self.url, operation=f"the key {key!r}", found="it cannot be the name of a file")
        return self._root / key

    def _look_for_mount(self) -> None:
        if not self._root.parent.is_dir():
            raise StoreUnreachable(
                store=self.url, operation="looking for the folder", found=f"no folder {self._root.parent} to hold it"
            )

    def _read(self, key: str, start: int, stop: int | None) -> bytes:
        with self._opened(key) as (file, size_bytes):
            end = size_bytes if stop is None else min(stop, size_bytes)
            return _read_range(file, start, max(0, end - start))

    def _read_into(self, key: str, rooms: Rooms) -> memoryview:
        with self._opened(key) as (file, size_bytes):
            body, at = rooms.take(size_bytes), 0
            with rooms.filling(body):
                while n_bytes := os.readv(file.fileno(), [body[at:]]):
                    at += n_bytes
            return body[:at]

    @contextlib.contextmanager
    def _opened(self, key: str) -> Iterator[tuple[FileIO, int]]:
        """Open an object; its size comes with it."""
        try:
            with self._path(key).open("rb", buffering=0) as file:
                yield file, os.fstat(file.fileno()).st_size
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            self._look_for_mount()
            raise ObjectMissing(key=key, store=self.url) from error

    def _write(self, key: str, body: bytes, place: Callable[[Path, Path], None]) -> None:
        self._path(key)
        unfinished = self._begin()
        try:
            unfinished.write(body)
            self._finish(unfinished, key, place)
        finally:
            _discard(unfinished)

    def _begin(self) -> BinaryIO:
        """Open a new file under a name of its own, below the root, where no listing looks."""
        self._look_for_mount()
        folder = self._root / UNFINISHED
        for changed in _make_folder(folder):
            _fsync_folder(changed)
        unfinished = (folder / secrets.token_hex(16)).open("xb")
        if not self._swept:
            self._swept = True
            _sweep(folder, now_seconds=os.fstat(unfinished.fileno()).st_mtime)
        return unfinished

    def _finish(self, unfinished: BinaryIO, key: str, place: Callable[[Path, Path], None]) -> None:
        unfinished.flush()
        os.fsync(unfinished.fileno())
        source, target = Path(unfinished.name), self._path(key)
        for attempt in range(_PLACING_ATTEMPTS):
            try:
                made = _make_folder(target.parent)
                place(source, target)
                break
            except FileExistsError as error:
                raise ObjectExists(key=key, store=self.url) from error
            except FileNotFoundError:
                if attempt == _PLACING_ATTEMPTS - 1 or not source.exists():
                    raise
            except OSError as error:
                if place is os.link and error.errno in NO_LINKS:
                    found = f"the file system has no hard links: {error.strerror}"
                    raise ConditionalWritesUnsupported(
                        store=self.url, operation=f"create {key}", found=found
                    ) from error
                raise
        for folder in (target.parent, *made):
            _fsync_folder(folder)

    def _remove(self, paths: Sequence[Path]) -> None:
        self._look_for_mount()
        for path in paths:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                path.unlink()
        for folder in _parents(paths, self._root):
            with contextlib.suppress(OSError):  # not empty, most of the time
                folder.rmdir()


def _read_range(file: BinaryIO, start: int, length_bytes: int) -> bytes:
    file.seek(start)
    pieces = []
    while length_bytes and (piece := file.read(length_bytes)):
        pieces.append(piece)
        length_bytes -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _discard(unfinished: BinaryIO) -> None:
    # A file that was given its name is gone from here already, unless it was linked: then this takes the other name.
    with contextlib.suppress(OSError):
        unfinished.close()
    Path(unfinished.name).unlink(missing_ok=True)


def _sweep(folder: Path, *, now_seconds: float) -> None:
    """Remove what dead processes left; `now_seconds` is the file system's own time, not this machine's."""
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < now_seconds - _ABANDONED_SECONDS:
                path.unlink()


def _make_folder(folder: Path) -> list[Path]:
    """Make a folder and those above it; return the folders that got a new entry, deepest first.

    Something else may make or remove them meanwhile, so the caller finds out by using the folder. (`mkdir` with
    `exist_ok` would raise when one that stood in the way is gone a moment later.)
    """
    missing = []
    while not folder.is_dir() and folder != folder.parent:
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        with contextlib.suppress(FileExistsError):
            path.mkdir()
    return [path.parent for path in missing]


def _fsync_folder(folder: Path) -> None:
    # Without this the new name itself may be lost with the power, although the file's content was flushed.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _parents(paths: Sequence[Path], root: Path) -> Iterator[Path]:
    """Yield every folder between the root and the paths, deepest first, each once."""
    folders = {folder for path in paths for folder in path.parents if folder.is_relative_to(root) and folder != root}
    return iter(sorted(folders, key=lambda folder: len(folder.parts), reverse=True))
