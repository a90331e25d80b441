"""Log lines: structlog, a readable console on a terminal, JSON elsewhere, always on standard error.

Every line has `timestamp` (UTC, ISO 8601, ms), `level` and `event` (a name of `events.py`); the rest are typed
fields. Libraries that log through the standard library come out the same way, from WARNING on. Credentials are
taken out of every field, also of tracebacks, before a line is rendered.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from replicad.lean import without_module
from replicad.observe.events import LIBRARY_WARNED
from replicad.observe.scrub import Scrubber

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from typing import TextIO

    from structlog.typing import FilteringBoundLogger, Processor, WrappedLogger


# structlog.dev would load rich and pygments (60 ms, 5 MB) for tracebacks that are not used.
with without_module("rich"):
    import structlog

_EVENT_WIDTH = 24
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


def get_logger(**fields: object) -> FilteringBoundLogger:
    """Return a logger that adds these fields to each of its lines. Use `events` for the names."""
    return cast("FilteringBoundLogger", structlog.get_logger(**fields))


def configure(
    *,
    level: str,
    log_format: str,
    stream: TextIO | None = None,
    scrubber: Scrubber | None = None,
    colors: bool = True,
) -> None:
    """Set up logging for the process; may be called again.

    Args:
        level: debug, info, warning, error or critical (nothing at all: no event is that grave).
        log_format: console, json, or auto (console when the stream is a terminal).
        stream: where lines go; standard error when None.
        scrubber: takes credentials out of every field; without one, their known shapes are still taken out.
        colors: whether a terminal is given colours.
    """
    out = sys.stderr if stream is None else stream
    console = log_format == "console" or (log_format == "auto" and out.isatty())
    scrub_value = (scrubber or Scrubber()).value

    def scrub(_logger: WrappedLogger, _method: str, fields: MutableMapping[str, object]) -> MutableMapping[str, object]:
        return {name: scrub_value(field) for name, field in fields.items()}

    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%Y-%m-%dT%H:%M:%S.%fZ", utc=True),
        _to_milliseconds,
        structlog.processors.format_exc_info,
        scrub,
    ]
    structlog.configure(
        processors=[*before, _console(colors=colors and out.isatty()) if console else _json],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", _Patient(out))),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_ToStructlog()]
    root.setLevel(logging.WARNING)


class _Patient:
    """A stream whose reader may be gone: a log line that cannot be written must not stop replication."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):  # ValueError: the stream was closed
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


class _ToStructlog(logging.Handler):
    """Hands the lines of libraries to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            max(record.levelno, logging.WARNING),
            LIBRARY_WARNED,
            library=record.name,
            message=record.getMessage(),
            **({"exc_info": record.exc_info} if record.exc_info else {}),
        )


def _to_milliseconds(
    _logger: WrappedLogger, _method: str, fields: MutableMapping[str, object]
) -> MutableMapping[str, object]:
    fields["timestamp"] = f"{str(fields['timestamp'])[:-4]}Z"
    return fields


def _json(_logger: WrappedLogger, _method: str, fields: MutableMapping[str, object]) -> str:
    import msgspec  # noqa: PLC0415 - a console does not need it

    order = {name: fields.pop(name) for name in ("timestamp", "level", "event")}
    return msgspec.json.encode(order | dict(fields)).decode()


def _console(*, colors: bool) -> Processor:
    return structlog.dev.ConsoleRenderer(_EVENT_WIDTH, colors=colors, exception_formatter=structlog.dev.plain_traceback)
