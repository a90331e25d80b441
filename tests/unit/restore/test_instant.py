"""Instants as people write them."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.errors import UsageError
from replicad.restore.instant import parse_instant

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = datetime(2025, 11, 2, 6, 30, 0, 500_000, tzinfo=UTC)


@pytest.fixture(params=["UTC", "America/New_York", "Asia/Kolkata"])
def machine_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Set the zone that the machine believes to be in."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-11-02T01:30:00Z", "2025-11-02T01:30:00+00:00"),
        ("2025-11-02T01:30:00", "2025-11-02T01:30:00+00:00"),
        ("2025-11-02 01:30", "2025-11-02T01:30:00+00:00"),
        ("  2025-11-02T01:30:00.25+05:30 ", "2025-11-01T20:00:00.250000+00:00"),
        ("2025-11-02T01:30:00.1239", "2025-11-02T01:30:00.123000+00:00"),
        ("2025-11-02", "2025-11-02T00:00:00+00:00"),
        ("15 minutes ago", "2025-11-02T06:15:00.500000+00:00"),
        ("2 days ago", "2025-10-31T06:30:00.500000+00:00"),
        ("90s ago", "2025-11-02T06:28:30.500000+00:00"),
        ("yesterday 10:00", "2025-11-01T10:00:00+00:00"),
        ("now", "2025-11-02T06:30:00.500000+00:00"),
    ],
)
@pytest.mark.usefixtures("machine_zone")
def test_naive_zoned_and_relative(text: str, expected: str) -> None:
    """TRAP: naive, zoned and relative times mean the same wherever the command runs; naive is UTC.

    Seen to fail (in New York and Kolkata) with a naive time left to `astimezone`, which takes the machine's zone,
    and with RELATIVE_BASE given in that zone. The day is the one on which New York's clocks go back.
    """
    wanted = round(datetime.fromisoformat(expected).timestamp() * 1000)
    for zone in (UTC, timezone(timedelta(hours=-7))):
        assert parse_instant(text, now=NOW.astimezone(zone)) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "1763690400",
        "01/02/2025",
        "2025-13-01",
        "2025-11-21T25:00",
        "10:00",
        "9" * 30,
        "9999999999 days ago",
    ],
)
def test_what_is_not_understood_is_a_usage_error(text: str) -> None:
    """A text with no meaning, or with two, is refused with an example of what is understood."""
    with pytest.raises(UsageError, match="15 minutes ago"):
        parse_instant(text, now=NOW)


@given(st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.timezones()))  # noqa: DTZ001
def test_iso_8601_is_read_to_the_millisecond(instant: datetime) -> None:
    """Every ISO 8601 time with an offset is the instant it names, rounded down."""
    milliseconds = parse_instant(instant.isoformat(), now=NOW)
    rest = instant - datetime(1970, 1, 1, tzinfo=UTC) - timedelta(milliseconds=milliseconds)
    assert timedelta(0) <= rest < timedelta(milliseconds=1)
