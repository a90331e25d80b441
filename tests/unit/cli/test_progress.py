from __future__ import annotations

import io
import json

from replicad.cli.progress import Bar, Lines, progress_for
from replicad.observe.logging import configure


class Terminal(io.StringIO):
    """A text stream that calls itself a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


def test_a_terminal_gets_a_bar() -> None:
    """A terminal sees the name and the size, and the bar is gone at the end; starting again starts over."""
    stream = Terminal()
    bar = progress_for(stream, "app.db")
    assert isinstance(bar, Bar)
    bar.started(2048)
    bar.advanced(1024)
    bar.started(4096)
    bar.advanced(4096)
    bar.finished()
    assert "restoring app.db" in stream.getvalue()
    assert "4.1/4.1 kB" in stream.getvalue() or "4.0/4.0 KiB" in stream.getvalue()


def test_other_streams_get_lines() -> None:
    """Elsewhere a line is logged now and then, not at each step."""
    stream = io.StringIO()
    configure(level="info", log_format="json", stream=stream)
    now = [100.0]
    lines = progress_for(stream, "app.db")
    assert isinstance(lines, Lines)
    lines = Lines("app.db", monotonic=lambda: now[0])
    lines.started(1000)
    for _ in range(10):
        lines.advanced(100)
        now[0] += 1
    lines.finished()
    said = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["event"], line["done_bytes"], line["total_bytes"]) for line in said] == [
        ("restore_progressed", 600, 1000)
    ]
