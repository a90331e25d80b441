from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.config.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("1s", 1.0),
        ("1.5s", 1.5),
        ("5m", 300.0),
        ("5min", 300.0),
        ("1h30m", 5400.0),
        ("1h 30m", 5400.0),
        ("24h", 86_400.0),
        ("7d", 604_800.0),
        ("2w", 1_209_600.0),
        ("0", 0.0),
        (" 4ms ", 0.004),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    """A duration is the sum of its parts, each in its own unit."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "1", "s", "1 s m", "-1s", "1S", "1h-5m", "1e3s", "nan", "inf", "1,5s", "٣s", "1s\n1"]
)
def test_what_is_no_duration(text: str) -> None:
    """A number without its unit, a negative one and other words are refused."""
    with pytest.raises(ValueError, match=r".*"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("4096", 4096),
        ("4096B", 4096),
        ("64MiB", 64 << 20),
        ("64 mib", 64 << 20),
        ("64MB", 64_000_000),
        ("1kB", 1000),
        ("1.5KiB", 1536),
        ("2TiB", 2 << 40),
    ],
)
def test_sizes(text: str, size_bytes: int) -> None:
    """A size is bytes, or a number of binary or decimal units, in any case."""
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "-1", "1M", "64Mi", "MiB", "0.3B", "1e6", "nan", "1 2", "12345678901234567"])
def test_what_is_no_size(text: str) -> None:
    """An ambiguous unit, a part of a byte and a negative number are refused."""
    with pytest.raises(ValueError, match=r".*"):
        parse_size(text)


@given(st.integers(0, 10**12))
def test_durations_round_trip(milliseconds: int) -> None:
    """Reading a formatted duration gives it back, to the millisecond."""
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=0.0005)


@given(st.integers(0, 1 << 49))
def test_sizes_round_trip(size_bytes: int) -> None:
    """Reading a formatted size gives it back, to the byte."""
    assert parse_size(format_size(size_bytes)) == size_bytes


@given(st.text())
def test_any_text_is_a_value_or_a_value_error(text: str) -> None:
    """No text makes the parsers fail in another way, and no value is negative."""
    for parse in (parse_duration, parse_size):
        try:
            assert parse(text) >= 0
        except ValueError:
            continue
