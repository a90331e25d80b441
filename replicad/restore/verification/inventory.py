"""What was listed, in a temporary SQLite database: memory stays the same whatever the number of objects.

All methods block; they are called in threads, one at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import apsw

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_CACHE_KIB = 8 << 10
_LOOKUP_KEYS = 500


class Inventory:
    """Keys and sizes of one listing. Opened by `open`, which is called first."""

    _connection: apsw.Connection

    def open(self) -> None:
        """Make the database."""
        # An empty name is a file of SQLite's own, in the folder for temporary files, gone with the connection. It
        # stays in memory for as long as the cache has room.
        self._connection = apsw.Connection("")
        self._connection.pragma("journal_mode", "off")
        self._connection.pragma("synchronous", 0)
        self._connection.pragma("cache_size", -_CACHE_KIB)
        self._connection.execute("CREATE TABLE listed (key TEXT PRIMARY KEY, size_bytes INTEGER) WITHOUT ROWID")

    def clear(self) -> None:
        """Forget all."""
        self._connection.execute("DELETE FROM listed")

    def add(self, rows: Iterable[tuple[str, int]]) -> None:
        """Take up objects; the newer size of a key counts."""
        with self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO listed VALUES (?, ?)", rows)

    def sizes(self, keys: Sequence[str]) -> dict[str, int]:
        """Return the sizes of those of the keys that were listed."""
        found: dict[str, int] = {}
        for begin in range(0, len(keys), _LOOKUP_KEYS):
            part = keys[begin : begin + _LOOKUP_KEYS]
            marks = ",".join("?" * len(part))
            query = f"SELECT key, size_bytes FROM listed WHERE key IN ({marks})"  # noqa: S608 - question marks only
            found |= {str(key): int(size) for key, size in self._connection.execute(query, part)}
        return found

    def following(self, key: str, limit: int) -> list[tuple[str, int]]:
        """Return the first objects behind a key, in key order."""
        query = "SELECT key, size_bytes FROM listed WHERE key > ? ORDER BY key LIMIT ?"
        return [(str(found), int(size)) for found, size in self._connection.execute(query, (key, limit))]

    def totals(self) -> tuple[int, int]:
        """Return how many objects were listed, and their bytes."""
        objects, size_bytes = next(self._connection.execute("SELECT count(*), total(size_bytes) FROM listed"))
        return int(objects), int(size_bytes)

    def close(self) -> None:
        """Remove it."""
        self._connection.close()
