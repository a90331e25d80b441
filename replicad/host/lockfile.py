"""A file whose lock says that its owner lives: the kernel lets go of it when the process ends, however it ends."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING, Self

from replicad.errors import AlreadyRunning, FileUnusable

if TYPE_CHECKING:
    from pathlib import Path

_MAX_PID_CHARACTERS = 20


class LockFile:
    """An exclusive `flock` on a file of its own, held from `acquire` to `release`.

    The file stays when the lock is let go: removing it would let two processes hold locks on two files
    of one name. The descriptor is not inherited by child processes, which would keep the lock alive.
    It is never the database itself: see `replicad.host.files`.

    Args:
        path: the lock file; created when missing. The folder exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def acquire(self) -> None:
        """Take the lock, or fail at once; waits for nobody.

        Raises:
            AlreadyRunning: another holds it; names its process id when that can be told.
            FileUnusable: the file cannot be opened or locked.
        """
        if self.held:
            return
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unusable(error, "opened") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            holder = _holder(descriptor)
            os.close(descriptor)
            if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
                raise AlreadyRunning(path=self.path, found=holder) from error
            raise self._unusable(error, "locked") from error
        self._descriptor = descriptor

    def release(self) -> None:
        """Let go of the lock; the file stays. Safe to repeat."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _unusable(self, error: OSError, operation: str) -> FileUnusable:
        hint = "Check that the folder exists, that this user may write to it, and that its file system has locks."
        return FileUnusable(path=self.path, operation=operation, found=error.strerror or repr(error), hint=hint)


def _holder(descriptor: int) -> str:
    """Return who says in the file that it holds the lock; across containers the number means nothing here."""
    written = os.pread(descriptor, _MAX_PID_CHARACTERS, 0).strip()
    return f"process {int(written)}" if written.isdigit() else "an unknown process"
