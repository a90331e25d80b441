"""Files that appear whole or not at all, names that are never taken from another file, and room left.

All of it blocks: call it in a thread. Nothing here opens a database file: closing any descriptor on one
drops the POSIX locks of every SQLite connection that this process holds on it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from replicad.errors import FileUnusable, NoSpace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from typing_extensions import Buffer

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_SECOND_NS = 1_000_000_000
_TICK_NS = 20_000_000  # of the clock by which files are stamped: 1 to 10 ms, as the kernel was built


@dataclass(frozen=True, slots=True, kw_only=True)
class FileIdentity:
    """Which file it is, whatever its name. An inode number is used again after the file is gone and closed."""

    device: int
    inode: int

    @classmethod
    def told_by(cls, found: os.stat_result) -> Self:
        """Return which file a look at it was of."""
        return cls(device=found.st_dev, inode=found.st_ino)


def identity_at(path: Path) -> FileIdentity | None:
    """Return which file has this name now (links followed), or None when there is none."""
    try:
        return FileIdentity.told_by(path.stat())
    except (FileNotFoundError, NotADirectoryError):
        return None


def identity_of(descriptor: int) -> FileIdentity:
    """Return which file a descriptor has open, also when it has no name any more."""
    return FileIdentity.told_by(os.fstat(descriptor))


@dataclass(frozen=True, slots=True, kw_only=True)
class FileStamp:
    """What the file system tells of a file: as long as that is the same, nobody has written into it."""

    identity: FileIdentity
    size_bytes: int
    modified_ns: int


def stamp_of(descriptor: int, *, patient: bool = False) -> FileStamp | None:
    """Return the stamp of a file that is open; None when the next write might leave it as it is.

    Which it might right behind the last one, because the kernel's clock stands still between two of its ticks (with
    `patient`, the next one is waited for), and on file systems that keep whole seconds.
    """
    found = _stamp(os.fstat(descriptor))
    if found is None and patient:
        time.sleep(_TICK_NS / _SECOND_NS)
        found = _stamp(os.fstat(descriptor))
    return found


def stamp_at(path: Path) -> FileStamp | None:
    """Return the stamp of the file that has this name now (links followed), as `stamp_of`; None also without one."""
    try:
        return _stamp(path.stat())
    except (FileNotFoundError, NotADirectoryError):
        return None


def _stamp(found: os.stat_result) -> FileStamp | None:
    if found.st_mtime_ns % _SECOND_NS == 0 or found.st_mtime_ns + _TICK_NS > time.time_ns():
        return None
    identity = FileIdentity.told_by(found)
    return FileStamp(identity=identity, size_bytes=found.st_size, modified_ns=found.st_mtime_ns)


def atomic_write(path: Path, body: Buffer, *, mode: int = 0o600, durable: bool) -> None:
    """Put a file in place of whatever is there: at every instant a reader sees all of the old or all of the new.

    The temporary file stands beside it as `.<name>.<random>.tmp`; only a killed process leaves one behind.

    Args:
        path: where; the folder exists.
        body: all of the content.
        mode: permission bits, whatever the umask.
        durable: whether the file survives a power cut once this returns (two fsyncs), or only a crash of
            this process.

    Raises:
        NoSpace: the disk is full; the old file stands.
        FileUnusable: for any other reason; the old file stands.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    with _problems_as_ours(path, "written", needed_bytes=memoryview(body).nbytes):
        try:
            _write_new(temporary, body, mode=mode, durable=durable)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if durable:
            fsync_directory(path.parent)


def fsync_directory(folder: Path) -> None:
    """Make the names in a folder survive a power cut: a rename alone is not yet on the disk.

    Raises:
        FileUnusable: the folder cannot be opened or synced.
    """
    with _problems_as_ours(folder, "synced"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        except OSError as error:
            # network and FUSE file systems that cannot sync a folder say so with these two
            if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
                raise
        finally:
            os.close(descriptor)


def move_aside(path: Path, suffix: str) -> Path:
    """Give a file the name `<name>.<suffix>`, or `<name>.<suffix>-2`, `-3` and so on: the first that is free.

    The name is reserved first and replaced then, so that no other file is ever overwritten, even when two
    processes do this at once.

    Returns:
        The new path; the folder is synced.

    Raises:
        FileUnusable: there is no such file, or it cannot be renamed.
    """
    with _problems_as_ours(path, "moved aside"):
        path.lstat()  # before a name is reserved for nothing
        aside = _reserve(path, suffix)
        try:
            path.rename(aside)
        except BaseException:
            aside.unlink()
            raise
        fsync_directory(path.parent)
    return aside


def remove(path: Path) -> None:
    """Remove a file; one that is not there is no error.

    Raises:
        FileUnusable: it cannot be removed.
    """
    with _problems_as_ours(path, "removed"):
        path.unlink(missing_ok=True)


def free_bytes(path: Path) -> int:
    """Return how many bytes an unprivileged process can still write where `path` is, or would be created.

    Raises:
        FileUnusable: the file system does not say.
    """
    with _problems_as_ours(path, "measured for free space"):
        return _free_bytes(path)


def _free_bytes(path: Path) -> int:
    existing = path.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    room = os.statvfs(existing)
    return room.f_bavail * room.f_frsize


def _write_new(path: Path, body: Buffer, *, mode: int, durable: bool) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        rest = memoryview(body).cast("B")
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fchmod(descriptor, mode)
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reserve(path: Path, suffix: str) -> Path:
    number = 1
    while True:
        aside = path.with_name(f"{path.name}.{suffix}" if number == 1 else f"{path.name}.{suffix}-{number}")
        try:
            os.close(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            number += 1
        else:
            return aside


@contextlib.contextmanager
def _problems_as_ours(path: Path, operation: str, *, needed_bytes: int = 0) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise NoSpace(path=path, needed_bytes=needed_bytes, free_bytes=_free_bytes(path)) from error
        raise FileUnusable(
            path=path,
            operation=operation,
            found=error.strerror or repr(error),
            hint="Check that the folder exists and that this user may write to it.",
        ) from error
