"""What SQLite keeps beside a database, `-wal` and `-shm`: whose they are, and when they go.

SQLite finds them by name. So the WAL of a file that was replaced counts as the new file's own: at the next open its
frames are laid over the new pages. Where the last connection has closed in order there is no WAL to be mistaken, but
replicad's connections stay open behind the application's, and keep it.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import apsw

from replicad.errors import TargetBusy
from replicad.host.files import identity_at, move_aside
from replicad.sqlite.connection import READ_SOMETHING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replicad.host.files import FileIdentity

_DEAD_MAN_SWITCH = 128
"""The byte of a -shm on which everybody who has it open holds a shared lock (os_unix.c, UNIX_SHM_DMS)."""


def set_wal_aside(database: Path, wal: FileIdentity | None, *, suffix: str) -> Path | None:
    """Give the WAL of a replaced file another name, if it still stands there; return the name.

    No connection of this process may be open on the database.

    Args:
        database: the path at which another file stands now, or none.
        wal: which file was the WAL of the one before; None when it had none.
        suffix: of the new name.

    Raises:
        TargetBusy: another process is connected, and takes that WAL for the new file's own, or has the old file open.
        FileUnusable: it cannot be renamed.
    """
    path = Path(f"{database}-wal")
    if wal is None or identity_at(path) != wal:
        return None
    with _alone(Path(f"{database}-shm")) as alone:
        if not alone:
            raise TargetBusy(path=path, found="an application that is connected to the database")
        return move_aside(path, suffix)


def leave_tidy(database: Path) -> None:
    """Close the database as an application does, so that SQLite removes the WAL if nobody else is connected."""
    with suppress(apsw.Error):  # it stays, then: it is as true as the file without it
        connection = apsw.Connection(os.fspath(database), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            connection.execute(READ_SOMETHING).fetchall()
        finally:
            connection.close()


@contextmanager
def _alone(shm: Path) -> Iterator[bool]:
    """Keep everybody from connecting while the block runs; yields False when somebody is connected."""
    try:
        descriptor = os.open(shm, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield True
        return
    try:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _DEAD_MAN_SWITCH)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)  # lets the lock go
