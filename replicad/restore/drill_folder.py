"""Where a drill restores to: a folder that goes away, also when the drill is killed.

It is made anew for each drill and locked while that lasts: one that a killed drill left behind has no lock on it, and
is removed by the next drill of that database, or by the daemon when it starts.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from replicad.errors import AlreadyRunning, FileUnusable
from replicad.host.lockfile import LockFile

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOCK = "lock"


class DrillFolder:
    """The temporary folder of one drill; all methods block.

    Args:
        parent: where it is made.
        name: of the database.
    """

    def __init__(self, parent: Path, name: str) -> None:
        self._parent = parent
        self._name = name
        self._lock: LockFile | None = None
        self._path: Path | None = None

    @property
    def path(self) -> Path:
        """Where it is, once taken."""
        if self._path is None:
            raise AssertionError
        return self._path

    def take(self) -> None:
        """Remove what killed drills of this database left behind, make the folder, and lock it.

        Raises:
            FileUnusable: that is not possible.
        """
        sweep(self._parent, self._name)
        with _unusable(self._parent):
            self._parent.mkdir(parents=True, exist_ok=True)
            self._path = Path(tempfile.mkdtemp(prefix=_prefix(self._name), dir=self._parent))
        self._lock = LockFile(self._path / _LOCK)
        self._lock.acquire()

    def remove(self) -> None:
        """Remove it, with all that is in it; safe to repeat."""
        if self._path is not None:
            shutil.rmtree(self._path, ignore_errors=True)
        if self._lock is not None:
            self._lock.release()


def sweep(folder: Path, name: str) -> int:
    """Remove the folders of drills that were killed; return how many. One that goes on is left alone. Blocks."""
    removed = 0
    for found in folder.glob(f"{_prefix(name)}*") if folder.is_dir() else ():
        lock = LockFile(found / _LOCK)
        try:
            lock.acquire()
        except (AlreadyRunning, FileUnusable):
            continue
        shutil.rmtree(found, ignore_errors=True)
        lock.release()
        removed += 1
    return removed


def _prefix(name: str) -> str:
    return f".{name.replace('/', '-')}.replicad-drill-"


@contextmanager
def _unusable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = "A drill needs a folder that it may write to: see drill_folder."
        raise FileUnusable(
            path=folder, operation="used for a drill", found=error.strerror or repr(error), hint=hint
        ) from error
