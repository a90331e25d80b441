"""An instant on the command line."""

from __future__ import annotations

from datetime import UTC, datetime

from replicad.errors import UsageError
from replicad.host.clock import SystemClock
from replicad.restore.instant import parse_instant


def instant_ms(text: str, *, where: str) -> int:
    """Return the Unix milliseconds of an instant given with the flag `where`.

    Raises:
        UsageError: it is neither ISO 8601 nor a relative time.
    """
    now = datetime.fromtimestamp(SystemClock().now_ms() / 1000, UTC)
    try:
        return parse_instant(text, now=now)
    except UsageError as error:
        raise UsageError(**(error.details | {"where": where})) from None
