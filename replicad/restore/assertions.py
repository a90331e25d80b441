"""What a user states about a restored database: SQL that has to be true of it.

A statement holds when it returns exactly one row whose first column is 1, or the word "true". It can read only that one
file, and has a time limit. All functions block.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

import apsw

from replicad.host.interruptible import Interrupted

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence
    from pathlib import Path

_STEPS = 10_000  # of SQLite's virtual machine between two looks at the time
_SHOWN_CHARACTERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a statement was found to be."""

    sql: str
    holds: bool
    found: str


def open_restored(path: Path) -> None:
    """Open a restored file and read from it, as an application would; what is unreadable SQLite's check tells of."""
    connection = _connect(path)
    try:
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    except apsw.Error:
        return
    finally:
        connection.close()


def ask_all(path: Path, statements: Sequence[str], timeout_seconds: float, stop: threading.Event) -> tuple[Answer, ...]:
    """Return the answers to all statements, in order.

    Raises:
        Interrupted: the event was set.
    """
    if not statements:
        return ()
    connection = _connect(path)
    try:
        connection.limit(apsw.SQLITE_LIMIT_ATTACHED, 0)
        return tuple(_ask(connection, sql, timeout_seconds, stop) for sql in statements)
    finally:
        connection.close()


def _connect(path: Path) -> apsw.Connection:
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    return apsw.Connection(f"file:{quote(str(path))}?mode=ro&immutable=1", flags=flags)


def _ask(connection: apsw.Connection, sql: str, timeout_seconds: float, stop: threading.Event) -> Answer:
    deadline = time.monotonic() + timeout_seconds
    connection.set_progress_handler(lambda: stop.is_set() or time.monotonic() > deadline, _STEPS)
    try:
        cursor = connection.execute(sql)
        rows = [row for row, _ in zip(cursor, range(2), strict=False)]
        cursor.close(True)  # noqa: FBT003 - apsw's "whether or not it is done"
    except apsw.InterruptError as error:
        if stop.is_set():
            raise Interrupted from error
        return Answer(sql=sql, holds=False, found=f"no answer within {timeout_seconds:g} s")
    except apsw.Error as error:
        return Answer(sql=sql, holds=False, found=str(error))
    if len(rows) != 1:
        return Answer(sql=sql, holds=False, found="no row" if not rows else "more than one row")
    value = rows[0][0]
    holds = value == 1 or (isinstance(value, str) and value.strip().lower() in {"1", "true"})
    return Answer(sql=sql, holds=holds, found=str(value)[:_SHOWN_CHARACTERS])
