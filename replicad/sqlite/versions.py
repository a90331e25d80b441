"""Which versions of SQLite carry the WAL-reset bug (https://www.sqlite.org/wal.html)."""

from __future__ import annotations

FIRST_VULNERABLE = (3, 7, 0)
FIXED = (3, 51, 3)
FIXED_IN_BRANCHES = ((3, 50, 7), (3, 44, 6))
RANGE = "3.7.0 to 3.51.2, without 3.50.7 and 3.44.6"


def is_vulnerable(version: str) -> bool:
    """Return whether a SQLite of this version ("3.45.1") can corrupt a database that another connection checkpoints."""
    number = tuple(int(part) for part in version.split(".")[:3])
    if number < FIRST_VULNERABLE or number >= FIXED:
        return False
    return not any(number[:2] == branch[:2] and number >= branch for branch in FIXED_IN_BRANCHES)


def version_text(number: int) -> str:
    """Return SQLITE_VERSION_NUMBER (3045001) as people write it ("3.45.1")."""
    return f"{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}"
