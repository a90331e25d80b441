"""An application as users have it: a web server with a SQLite database of its own.

    python -m tests.support.web_application DATABASE PORT_FILE

`POST /N` commits the row N, `GET /` counts the rows, `GET /N` says 200 when row N is there. 503 when the database is
busy: nothing was committed then.
"""

from __future__ import annotations

import sqlite3
import sys
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BUSY_SECONDS = 0.05
"""Shorter than applications wait, so that those who write over HTTP see each refusal, and when it ended."""


class Requests(BaseHTTPRequestHandler):
    """One client; its requests share a connection to the database."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        """Open the database."""
        super().setup()
        self._database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=BUSY_SECONDS)
        self._database.execute("PRAGMA synchronous=OFF")

    def finish(self) -> None:
        """Close it."""
        self._database.close()
        with suppress(OSError):
            super().finish()

    def do_POST(self) -> None:
        """Commit a row."""
        self._answer("INSERT OR REPLACE INTO t VALUES (?, randomblob(100))", (int(self.path[1:]),))

    def do_GET(self) -> None:
        """Count the rows."""
        self._answer("SELECT count(*) FROM t", ())

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self, statement: str, values: tuple[int, ...]) -> None:
        try:
            found = self._database.execute(statement, values).fetchone()
        except sqlite3.OperationalError as error:
            status, body = 503, str(error).encode()
        else:
            status, body = 200, str(found[0] if found else "").encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Make the table where there is none, and serve."""
    database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
    database.execute("PRAGMA journal_mode=wal")
    database.execute("CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, v)")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Requests)
    server.daemon_threads = True
    noted = Path(f"{sys.argv[2]}.new")
    noted.write_text(str(server.server_port))
    noted.rename(sys.argv[2])
    server.serve_forever()


if __name__ == "__main__":
    main()
