"""The place where a restored database will stand: taken by one restore at a time, changed in one step at the end.

What stands there is not touched before the new file is proven. Then, in this order: the old database is kept under
another name when that was asked for; the files that belonged to it (`-wal`, `-shm`, `-journal`, the state file) are
moved aside, because SQLite would replay them onto the new one; the new file is renamed into place; the folder is
synced.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from replicad.errors import FileUnusable, TargetBusy, TargetExists
from replicad.host.files import fsync_directory
from replicad.restore.image import disk_error
from replicad.restore.journal import is_ours, journal_path
from replicad.restore.old_file import is_in_use
from replicad.restore.standing import roll_back

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

COMPANIONS = ("-wal", "-shm", "-journal", "-replicad")
"""What stands beside a database and is about that very file: SQLite's three, and replicad's state file."""


def resolve_target(path: Path, *, force: bool) -> Path:
    """Return the path with links followed, as SQLite follows them; asks nothing of the store, changes nothing.

    Raises:
        TargetExists: something stands there, and `force` is not set.
        FileUnusable: it cannot be followed, or is no file.
    """
    try:
        target = path.resolve()
        if target.exists() and not target.is_file():
            hint = "Name a file; it is made when it does not exist."
            raise FileUnusable(path=path, operation="replaced", found="it is not a regular file", hint=hint)
        if target.exists() and not force:
            raise TargetExists(path=path)
    except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError up to Python 3.12
        hint = "Check the links and the permissions on the way to it."
        raise FileUnusable(path=path, operation="found", found=str(error), hint=hint) from error
    return target


class Place:
    """The target of one restore. All methods block.

    `take` comes first and `release` last, also when `take` failed or was cancelled.

    Args:
        target: with links followed.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self._lock_path = target.with_name(f".{target.name}.replicad-lock")
        self._lock = -1
        self._temporaries: list[Path] = []

    def take(self) -> None:
        """Lock it against other restores, making its folder when that is missing, and undo what killed ones left.

        Safe to repeat.

        Raises:
            TargetBusy: another restore into it is under way, or the database there is open.
            FileUnusable: the folder cannot be used, or SQLite cannot put back what a killed restore had changed.
        """
        if self._lock >= 0:
            return
        with _problems(self.target):
            self.target.parent.mkdir(parents=True, exist_ok=True)
            self._lock = self._acquire()
        self._refuse_busy()
        with _problems(self.target):
            self._remove_leftovers()
            unfinished = is_ours(journal_path(self.target))
        if unfinished:
            roll_back(self.target)

    def temporary(self) -> Path:
        """Return a new name for the file in which the database is put together."""
        self._temporaries.append(self.target.with_name(f".{self.target.name}.replicad-{secrets.token_hex(6)}.tmp"))
        return self._temporaries[-1]

    def put(self, temporary: Path, *, keep_replaced: bool, now_ms: int) -> tuple[Path, ...]:
        """Rename the finished, synced file into place; return the new names of what was moved aside.

        Raises:
            TargetBusy: the database there was opened meanwhile.
            FileUnusable: a name could not be changed; what was moved aside is moved back.
            NoSpace: the folder is full.
        """
        self._refuse_busy()
        aside = self._free_name(now_ms)
        moved: list[tuple[Path, Path]] = []
        with _problems(self.target):
            try:
                if keep_replaced and self.target.exists():
                    # a second name, not a rename: at no instant is the database missing
                    os.link(self.target, aside)
                    moved.append((aside, aside))
                for old, new in self._companions(aside):
                    old.rename(new)
                    moved.append((old, new))
                temporary.rename(self.target)
            except BaseException:
                _undo(moved)
                raise
        fsync_directory(self.target.parent)
        return tuple(new for _, new in moved)

    def keep(self, commit: Callable[[], None], *, now_ms: int) -> tuple[Path, ...]:
        """Have the file that stands there become the new database; return the new names of what was moved aside.

        Args:
            commit: makes it that, in one step.
            now_ms: for the names.

        Raises:
            FileUnusable: a name could not be changed; what was moved aside is moved back.
        """
        moved: list[tuple[Path, Path]] = []
        with _problems(self.target):
            try:
                for old, new in self._companions(self._free_name(now_ms)):
                    if old != journal_path(self.target):
                        old.rename(new)
                        moved.append((old, new))
                commit()
            except BaseException:
                _undo(moved)
                raise
        return tuple(new for _, new in moved)

    def release(self) -> None:
        """Let the next restore in; nothing of this one is left behind but what was put in place. Safe to repeat."""
        for temporary in self._temporaries:
            temporary.unlink(missing_ok=True)
        if self._lock >= 0:
            # removed while it is still locked: whoever waits for it finds that its name is gone, and starts afresh
            self._lock_path.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = -1

    def _acquire(self) -> int:
        while True:
            descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_named(descriptor):
                    return descriptor
            except BlockingIOError as error:
                os.close(descriptor)
                raise TargetBusy(path=self.target, found="another restore into it is under way") from error
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _is_named(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self._lock_path.stat())
        except FileNotFoundError:
            return False

    def _remove_leftovers(self) -> None:
        """Remove what restores that were killed left behind: none other is alive, for we hold the lock."""
        prefix, suffix = f".{self.target.name}.replicad-", ".tmp"
        for found in self.target.parent.iterdir():
            if found.name.startswith(prefix) and found.name.endswith(suffix):
                found.unlink(missing_ok=True)

    def _refuse_busy(self) -> None:
        if self.target.exists() and is_in_use(self.target):
            raise TargetBusy(
                path=self.target, found="the database that stands there is open, in this or another process"
            )

    def _companions(self, aside: Path) -> Iterator[tuple[Path, Path]]:
        for suffix in COMPANIONS:
            old = self.target.with_name(self.target.name + suffix)
            if os.path.lexists(old):
                yield old, aside.with_name(aside.name + suffix)

    def _free_name(self, now_ms: int) -> Path:
        """Return a name under which the old database and its companions are still one database."""
        stamp = datetime.fromtimestamp(now_ms // 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
        number = 1
        while True:
            name = f"{self.target.name}.replaced-{stamp}" + ("" if number == 1 else f"-{number}")
            aside = self.target.with_name(name)
            if not any(os.path.lexists(aside.with_name(name + suffix)) for suffix in ("", *COMPANIONS)):
                return aside
            number += 1


def _undo(moved: list[tuple[Path, Path]]) -> None:
    for old, new in reversed(moved):
        with contextlib.suppress(OSError):  # the error that led here is the one to be told
            if old == new:
                new.unlink()
            else:
                new.rename(old)


@contextlib.contextmanager
def _problems(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise disk_error(target, "put in place", error, needed_bytes=0) from error
