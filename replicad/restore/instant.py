"""An instant as a person writes it: ISO 8601, or relative to now.

A time without a zone is UTC, wherever the command runs: the containers this is for run in UTC, and the
log lines one copies a time from are in UTC too. Dates like 01/02/2025 mean different days to different
people and are refused.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from replicad.errors import UsageError

UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_instant(text: str, *, now: datetime) -> int:
    """Return Unix milliseconds (rounded down) for an instant.

    Understands ISO 8601 dates and times with `Z`, an offset or no zone (which is UTC), and English relative times
    such as "15 minutes ago" or "yesterday".

    Args:
        text: what the user wrote.
        now: the present, aware.

    Raises:
        UsageError: the text is neither.
    """
    found = _iso(text.strip()) or _relative(text.strip(), now)
    if found is None:
        raise UsageError(
            where="--at",
            expected='ISO 8601 ("2025-11-21T02:00:00Z", UTC without a zone) or a relative time ("15 minutes ago")',
            found=repr(text),
            hint="`replicad log` lists the instants that can be restored.",
        )
    return (found - UNIX_EPOCH) // timedelta(milliseconds=1)


def _iso(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _relative(text: str, now: datetime) -> datetime | None:
    import dateparser  # noqa: PLC0415 - 0.2 s of imports that only relative times need

    found = dateparser.parse(
        text,
        languages=["en"],
        settings={
            "PARSERS": ["relative-time"],
            "RELATIVE_BASE": now.astimezone(UTC).replace(tzinfo=None),
            "TIMEZONE": "UTC",
            "TO_TIMEZONE": "UTC",
            "RETURN_AS_TIMEZONE_AWARE": True,
        },
    )
    return found if isinstance(found, datetime) else None
