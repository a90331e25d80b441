"""The database file and its WAL, by their bytes alone: not opened with SQLite, so nothing is locked or changed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from replicad.cli.checks.check import Check, fail, ok, warn
from replicad.cli.output import size
from replicad.position import is_page_size

if TYPE_CHECKING:
    from pathlib import Path

    from replicad.config import DatabaseSettings, Settings

_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 100
_WRITE_VERSION, _WAL = 18, 2  # file format, offset 18: 1 is a rollback journal, 2 is WAL (fileformat2.html)
_LARGEST = 65536


def check_database(settings: Settings, database: DatabaseSettings) -> list[Check]:
    """Return the checks of the file and what lies beside it."""
    path = database.path
    try:
        with path.open("rb") as stream:
            header = stream.read(_HEADER_BYTES)
    except FileNotFoundError:
        return [ok("database", f"{path} does not exist yet; it is restored or waited for")]
    except OSError as error:
        advice = "Run replicad as the user of the application, or give it read and write permission."
        return [fail("database", f"{path} cannot be read: {error.strerror}", advice)]
    if header and (not header.startswith(_MAGIC) or len(header) < _HEADER_BYTES):
        advice = "Give the path of a plain SQLite database; encrypted ones (SQLCipher) cannot be replicated."
        return [fail("database", f"{path} is no SQLite database: it begins with {header[:16]!r}", advice)]
    return [_file(path, header), _journal_mode(settings, header), _wal(settings, path), *_hot_journal(path)]


def _file(path: Path, header: bytes) -> Check:
    if not os.access(path, os.R_OK | os.W_OK):
        return fail("database", f"{path} is not writable by this user", "Run replicad as the user of the application.")
    if not header:
        return ok("database", f"{path} is empty")
    stored = int.from_bytes(header[16:18])
    page_size = _LARGEST if stored == 1 else stored
    if not is_page_size(page_size):
        return fail("database", f"{path} names a page size of {page_size}", "The file is damaged; restore it.")
    return ok("database", f"{path}, {size(path.stat().st_size)} in pages of {page_size} bytes")


def _journal_mode(settings: Settings, header: bytes) -> Check:
    name = "journal mode"
    if header and header[_WRITE_VERSION] == _WAL:
        return ok(name, "WAL")
    if settings.wal == "convert":
        return ok(name, "no WAL yet; replicad switches it on when it starts (wal: convert)")
    advice = "Use wal: convert, or PRAGMA journal_mode=wal in the application, for each transaction to be captured."
    return warn(name, "no WAL, and wal: keep: the state is captured by comparison at each change", advice)


def _wal(settings: Settings, path: Path) -> Check:
    wal = path.with_name(f"{path.name}-wal")
    wal_bytes = wal.stat().st_size if wal.exists() else 0
    if wal_bytes > settings.max_wal_bytes:
        advice = "Look whether a long-running reader keeps it from being checkpointed; or raise max_wal_bytes."
        return warn("WAL", f"{size(wal_bytes)}, above max_wal_bytes ({size(settings.max_wal_bytes)})", advice)
    return ok("WAL", size(wal_bytes) if wal_bytes else "none or empty")


def _hot_journal(path: Path) -> list[Check]:
    journal = path.with_name(f"{path.name}-journal")
    if not journal.exists() or journal.stat().st_size == 0:
        return []
    advice = "Normal while the application writes; otherwise open the database once, so that SQLite rolls it back."
    return [warn("rollback journal", f"{journal.name} is not empty", advice)]
