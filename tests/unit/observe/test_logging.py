from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys
from typing import TextIO

import pytest

from replicad.observe import events
from replicad.observe.logging import configure, get_logger
from replicad.observe.scrub import Scrubber

SECRET = "wJalrXUtnFEMIK7MDENG"  # noqa: S105 - an example


class Terminal(io.StringIO):
    """A text stream that calls itself a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


class Gone(io.StringIO):
    """A stream whose reader is gone."""

    def write(self, _text: str) -> int:
        """Fail as a pipe does."""
        raise BrokenPipeError


def _lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def _fail(message: str) -> None:
    raise ValueError(message)


def _json_log(level: str = "info", scrubber: Scrubber | None = None) -> io.StringIO:
    stream = io.StringIO()
    configure(level=level, log_format="auto", stream=stream, scrubber=scrubber)
    return stream


def test_a_line_is_json_where_there_is_no_terminal() -> None:
    """Each line is one JSON object that begins with time (UTC, ms), level and event, and keeps fields typed."""
    stream = _json_log()
    get_logger(database="app.db").info(events.SEGMENT_SHIPPED, txid=7, seconds=0.5, parent=None)
    (line,) = _lines(stream)
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(line.pop("timestamp")))
    assert line == {
        "level": "info",
        "event": "segment_shipped",
        "database": "app.db",
        "txid": 7,
        "seconds": 0.5,
        "parent": None,
    }


def test_a_terminal_gets_readable_lines() -> None:
    """On a terminal a line is for people; with colours unless they are not wanted."""
    for colors in (True, False):
        stream = Terminal()
        configure(level="info", log_format="auto", stream=stream, colors=colors)
        get_logger().info(events.READY, database="app.db")
        assert "ready" in stream.getvalue()
        assert ("\x1b[" in stream.getvalue()) is colors
        with pytest.raises(json.JSONDecodeError):
            json.loads(stream.getvalue())


@pytest.mark.parametrize(("log_format", "stream"), [("json", Terminal()), ("console", io.StringIO())])
def test_the_format_can_be_chosen(log_format: str, stream: io.StringIO) -> None:
    """The format asked for holds whatever the stream is."""
    configure(level="info", log_format=log_format, stream=stream)
    get_logger().info(events.READY)
    assert stream.getvalue().startswith("{") is (log_format == "json")


def test_levels() -> None:
    """Lines below the level are left out."""
    stream = _json_log("warning")
    get_logger().info(events.READY)
    get_logger().warning(events.SHIP_FAILED)
    assert [line["event"] for line in _lines(stream)] == ["ship_failed"]


def test_libraries_log_in_the_same_form() -> None:
    """Lines of the standard library's logging come out as JSON from WARNING on, tracebacks included."""
    stream = _json_log("debug")
    logging.getLogger("botocore.endpoint").info("not this")
    logging.getLogger("botocore.endpoint").warning("slow %s", "answer")
    try:
        _fail("inside")
    except ValueError:
        logging.getLogger("asyncio").exception("lost")
    first, second = _lines(stream)
    assert (first["event"], first["library"], first["message"]) == (
        "library_warned",
        "botocore.endpoint",
        "slow answer",
    )
    assert "ValueError: inside" in str(second["exception"])


def test_a_trap_secrets_in_logs() -> None:
    """A credential is in no field, no library's message and no traceback.

    Seen to fail with the scrubbing processor taken out of the list.
    """
    stream = _json_log(scrubber=Scrubber([SECRET]))
    get_logger().info(events.READY, url=f"https://a:{SECRET}@b", nested={"x": [SECRET]})
    logging.getLogger("aiohttp.client").warning("Authorization: AWS4 Credential=%s", SECRET)
    try:
        _fail(SECRET)
    except ValueError:
        get_logger().exception(events.SHIP_FAILED)
    assert len(_lines(stream)) == 3
    assert SECRET not in stream.getvalue()


@pytest.mark.parametrize("closed", [True, False])
def test_a_log_that_cannot_be_written_stops_nothing(*, closed: bool) -> None:
    """A broken pipe or a closed stream under the log is no error of the one who logs.

    Seen to fail with the stream handed to structlog as it is.
    """
    stream: TextIO = Gone()
    if closed:
        stream = io.StringIO()
        stream.close()
    configure(level="info", log_format="json", stream=stream if not closed else _Untouched(stream))
    get_logger().info(events.READY)


class _Untouched(io.StringIO):
    """A stream that is closed when it is written to, not before."""

    def __init__(self, closed: TextIO) -> None:
        super().__init__()
        self._closed = closed

    def write(self, text: str) -> int:
        return self._closed.write(text)


def test_logging_does_not_load_rich() -> None:
    """Importing the log costs no rich and no pygments, and leaves rich importable.

    Seen to fail with structlog imported as it is.
    """
    code = (
        "import sys, replicad.observe.logging\n"
        "assert not {'rich', 'pygments'} & set(sys.modules), 'loaded'\n"
        "import rich.progress"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
