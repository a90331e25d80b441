"""The demonstration's application: notes in a SQLite file behind HTTP, by the standard library alone.

It knows nothing of replicad. `python demo_app.py DATABASE PORT [ADDRESS]` serves on loopback, or on the address:

    GET /notes      all rows, oldest first        POST /notes     one row: {"text": …} → 201 {"id": …}
    GET /health     204                           DELETE /notes   every row: the mistake the story needs
"""

from __future__ import annotations

import json
import signal
import sqlite3
import sys
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

SCHEMA = """
CREATE TABLE IF NOT EXISTS notes (
    id INTEGER PRIMARY KEY,
    text TEXT NOT NULL,
    written_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
)
"""
BUSY_SECONDS = 10.0

Row = tuple[int, str, str]


def rows(database: Path) -> list[Row]:
    """Return every note of a database as (id, text, written_at), oldest first."""
    with closing(sqlite3.connect(database, timeout=BUSY_SECONDS)) as connection:
        return connection.execute("SELECT id, text, written_at FROM notes ORDER BY id").fetchall()


class Notes(BaseHTTPRequestHandler):
    """One request: a connection of its own, one transaction, closed before the answer goes out."""

    protocol_version = "HTTP/1.1"
    database: Path

    def do_GET(self) -> None:
        """Answer with all notes, or with 204 for /health."""
        if self.path == "/health":
            self._answer(204, None)
        else:
            self._answer(200, rows(self.database))

    def do_POST(self) -> None:
        """Insert one note; 201 is sent after the commit, so it means what an application means by it."""
        note = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with closing(sqlite3.connect(self.database, timeout=BUSY_SECONDS)) as connection, connection:
            row_id = connection.execute("INSERT INTO notes (text) VALUES (?)", (note["text"],)).lastrowid
        self._answer(201, {"id": row_id})

    def do_DELETE(self) -> None:
        """Delete every note: a DELETE whose WHERE was forgotten."""
        with closing(sqlite3.connect(self.database, timeout=BUSY_SECONDS)) as connection, connection:
            deleted = connection.execute("DELETE FROM notes").rowcount
        self._answer(200, {"deleted": deleted})

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
        """Stay silent: the story is told by the demonstration."""

    def _answer(self, status: int, value: object) -> None:
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


def main() -> None:
    """Create the table if there is none, and serve until SIGTERM."""
    Notes.database = Path(sys.argv[1])
    with closing(sqlite3.connect(Notes.database, timeout=BUSY_SECONDS)) as connection, connection:
        connection.execute(SCHEMA)
    signal.signal(signal.SIGTERM, _stop)
    address = sys.argv[3] if len(sys.argv) > 3 else "127.0.0.1"
    with ThreadingHTTPServer((address, int(sys.argv[2])), Notes) as server:
        server.serve_forever(poll_interval=0.05)


if __name__ == "__main__":
    main()
