"""A small application with a rhythm: busy hours, idle nights, quiet Sundays, now and then something large.

It knows what its database holds without asking anybody: a digest over all rows, kept up to date with each commit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import apsw
import xxhash

from tests.simulate.year_time import DAY_SECONDS, HOUR_SECONDS

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator
    from pathlib import Path

_TABLES = ("counter", "notes", "sessions")
_MASK = (1 << 64) - 1
_HOURS = (1, 1, 0, 0, 0, 1, 3, 8, 14, 18, 20, 18, 14, 17, 19, 18, 15, 11, 8, 7, 7, 5, 3, 2)  # of a working day
_WORDS = (
    "invoice",
    "table",
    "garden",
    "meeting",
    "copper",
    "harbour",
    "draft",
    "engine",
    "receipt",
    "window",
    "letter",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """What the application does in a year."""

    commits_a_day: float = 400.0  # on a working day; a fifth of that on a Sunday
    most_notes: int = 8_000  # older ones are deleted at night
    notes_at_first: int = 1_500
    import_days: int = 30  # a bulk import that often
    import_rows: int = 2_000
    vacuum_days: int = 90
    schema_days: int = 120
    purge_days: int = 150  # most notes are deleted at once
    holiday: tuple[int, int] = (220, 234)  # days without a single commit


class Application:
    """One connection and what the database behind it holds; `number` counts its commits."""

    def __init__(self, path: Path, dice: random.Random) -> None:
        self.path = path
        self.number = 0
        self.digest = 0
        self._dice = dice
        self._rows: dict[tuple[str, int], int] = {}
        self._connection: apsw.Connection | None = None
        self._next_id = 1

    @property
    def connection(self) -> apsw.Connection:
        """The open connection."""
        assert self._connection is not None
        return self._connection

    @property
    def is_open(self) -> bool:
        """Whether the application runs."""
        return self._connection is not None

    def open(self) -> None:
        """Start, with the database as it stands there; one is made where there is none."""
        self._connection = apsw.Connection(str(self.path))
        self._connection.set_busy_timeout(5000)
        self._connection.pragma("synchronous", 0)
        if not self._connection.execute("SELECT count(*) FROM sqlite_schema").get:
            self._connection.pragma("journal_mode", "wal")
            self._connection.execute(
                "BEGIN; CREATE TABLE counter (id INTEGER PRIMARY KEY, number INTEGER NOT NULL);"
                " CREATE TABLE notes (id INTEGER PRIMARY KEY, owner INTEGER NOT NULL, title TEXT, body TEXT, done);"
                " CREATE INDEX by_owner ON notes (owner);"
                " CREATE TABLE sessions (id INTEGER PRIMARY KEY, token BLOB, expires INTEGER);"
                " INSERT INTO counter VALUES (1, 0); COMMIT"
            )
        self._rows = dict(_rows(self._connection))
        self.digest = sum(self._rows.values()) & _MASK
        self.number = self._connection.execute("SELECT number FROM counter").get
        self._next_id = 1 + (
            self._connection.execute(
                "SELECT max(id) FROM (SELECT max(id) AS id FROM notes UNION ALL SELECT max(id) FROM sessions)"
            ).get
            or 0
        )

    def close(self) -> None:
        """End."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # --- what it does --------------------------------------------------------------------------------

    def act(self) -> None:
        """Commit something small, as a visitor's request does."""
        draw = self._dice.random()
        if draw < 0.45:
            self.commit(self._write_note)
        elif draw < 0.75:
            self.commit(self._change_note)
        elif draw < 0.95:
            self.commit(self._log_in)
        else:
            self.commit(self._delete_note)

    def bulk(self, rows: int) -> None:
        """Import many notes in one transaction."""

        def change() -> None:
            for _ in range(rows):
                self._write_note()

        self.commit(change)

    def clean_up(self, most_notes: int) -> None:
        """Delete what has expired, and the oldest notes beyond a number."""
        self.commit(lambda: self._clean_up(most_notes))

    def vacuum(self) -> None:
        """Write the whole database anew."""
        self.connection.execute("VACUUM")

    def change_schema(self) -> None:
        """Add a column, whatever it is for."""
        name = f"extra_{self.number}"
        self.connection.execute(f"ALTER TABLE notes ADD COLUMN {name} TEXT")

    def commit(self, change: Callable[[], None]) -> None:
        """Make a change in a transaction of its own."""
        self.connection.execute("BEGIN IMMEDIATE")
        change()
        self.number += 1
        self._set("counter", 1, "UPDATE counter SET number = ?2 WHERE id = ?1", (self.number,))
        self.connection.execute("COMMIT")

    def image_digest(self) -> bytes:
        """Return a hash over every page, as SQLite itself reads it through a connection of its own."""
        connection = apsw.Connection(str(self.path))
        try:
            return xxhash.xxh3_128_digest(connection.serialize("main"))
        finally:
            connection.close()

    def _write_note(self) -> None:
        body = " ".join(self._dice.choices(_WORDS, k=self._dice.randint(10, 80))) + self._dice.randbytes(60).hex()
        values = (self._dice.randrange(200), self._dice.choice(_WORDS), body, 0)
        self._set("notes", self._next_id, "INSERT INTO notes (id, owner, title, body, done) VALUES (?,?,?,?,?)", values)
        self._next_id += 1

    def _change_note(self) -> None:
        found = self._some("notes")
        if found is None:
            self._write_note()
            return
        body = " ".join(self._dice.choices(_WORDS, k=self._dice.randint(10, 80)))
        self._set("notes", found, "UPDATE notes SET body = ?2, done = ?3 WHERE id = ?1", (body, self.number))

    def _log_in(self) -> None:
        values = (self._dice.randbytes(24), self.number + 300)
        self._set("sessions", self._next_id, "INSERT INTO sessions VALUES (?,?,?)", values)
        self._next_id += 1

    def _delete_note(self) -> None:
        found = self._some("notes")
        if found is not None:
            self._delete("notes", found)

    def _clean_up(self, most_notes: int) -> None:
        expired = self.connection.execute("SELECT id FROM sessions WHERE expires < ?", (self.number,)).fetchall()
        for (found,) in expired:
            self._delete("sessions", found)
        surplus = self.connection.execute("SELECT count(*) FROM notes").get - most_notes
        oldest = self.connection.execute("SELECT id FROM notes ORDER BY id LIMIT ?", (max(0, surplus),)).fetchall()
        for (found,) in oldest:
            self._delete("notes", found)

    def _some(self, table: str) -> int | None:
        """Return the id of a row at or behind a random one."""
        number = self._dice.randrange(1, self._next_id + 1)
        found: int | None = self.connection.execute(f"SELECT min(id) FROM {table} WHERE id >= ?", (number,)).get
        return found

    def _set(self, table: str, number: int, statement: str, values: tuple[object, ...]) -> None:
        self.connection.execute(statement, (number, *values))
        row = self.connection.execute(f"SELECT * FROM {table} WHERE id = ?", (number,)).fetchone()
        self._note(table, number, _hash(table, row))

    def _delete(self, table: str, number: Any) -> None:  # noqa: ANN401 - as SQLite has it
        self.connection.execute(f"DELETE FROM {table} WHERE id = ?", (number,))
        self._note(table, number, 0)

    def _note(self, table: str, number: int, hashed: int) -> None:
        before = self._rows.pop((table, number), 0)
        if hashed:
            self._rows[table, number] = hashed
        self.digest = self.digest - before + hashed & _MASK


def digest_of(path: Path) -> tuple[int, int]:
    """Return the number of commits and the digest that a file which nobody uses has; SQLite must find it whole.

    Raises:
        AssertionError: it does not.
    """
    connection = apsw.Connection(f"file:{path}?immutable=1", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    try:
        assert connection.pragma("quick_check") == "ok"
        number: int = connection.execute("SELECT number FROM counter").get
        return number, sum(hashed for _, hashed in _rows(connection)) & _MASK
    finally:
        connection.close()


def _rows(connection: apsw.Connection) -> Iterator[tuple[tuple[str, int], int]]:
    for table in _TABLES:
        for row in connection.execute(f"SELECT * FROM {table}"):
            yield (table, row[0]), _hash(table, row)


def _hash(table: str, row: Any) -> int:  # noqa: ANN401 - whatever SQLite has
    """Hash a row; a column that was added and never set changes nothing."""
    return xxhash.xxh3_64_intdigest(repr((table, *(value for value in row if value is not None))).encode())


def moments(day: int, rhythm: Rhythm, dice: random.Random) -> list[float]:
    """Return when visitors have something committed on a day, in seconds from its beginning; day 0 is a Thursday."""
    if rhythm.holiday[0] <= day < rhythm.holiday[1]:
        return []
    whole = rhythm.commits_a_day * (0.2 if day % 7 == 3 else 1.0)
    found: list[float] = []
    for hour, weight in enumerate(_HOURS):
        visits = whole * weight / sum(_HOURS) / 2  # each commits twice, in the mean
        for _ in range(int(visits) + (dice.random() < visits % 1)):
            at = hour * HOUR_SECONDS + dice.random() * HOUR_SECONDS
            for _ in range(dice.choice((1, 1, 2, 4))):
                found.append(at)
                at += dice.expovariate(1.0)
    return sorted(second for second in found if second < DAY_SECONDS)
