"""Durations and sizes as people write them: "1s", "500ms", "1h30m", "64MiB". Parse and format, nothing else."""

from __future__ import annotations

import re

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_BYTES = {
    "B": 1,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "TB": 1000**4,
    "KIB": 1 << 10,
    "MIB": 1 << 20,
    "GIB": 1 << 30,
    "TIB": 1 << 40,
}
_NUMBER = r"[0-9]{1,15}(?:\.[0-9]{1,9})?"
_DURATION_PART = re.compile(rf"({_NUMBER})\s*(ms|min|s|m|h|d|w)")
_DURATION = re.compile(rf"(?:{_DURATION_PART.pattern}\s*)+")
_SIZE = re.compile(rf"({_NUMBER})\s*([A-Za-z]*)")
_FORMAT_SECONDS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))
_FORMAT_BYTES = (
    ("TiB", 1 << 40),
    ("TB", 1000**4),
    ("GiB", 1 << 30),
    ("GB", 1000**3),
    ("MiB", 1 << 20),
    ("MB", 1000**2),
    ("KiB", 1 << 10),
    ("kB", 1000),
)


def parse_duration(text: str) -> float:
    """Return the seconds that "500ms", "1s", "1h30m" or "7d" stand for.

    A bare number has no unit and is refused, since half of its readers take it for milliseconds; 0 is 0 in
    every unit.

    Raises:
        ValueError: the text is no duration.
    """
    stripped = text.strip()
    if stripped == "0":
        return 0.0
    if _DURATION.fullmatch(stripped) is None:
        raise ValueError(text)
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(stripped))


def format_duration(seconds: float) -> str:
    """Return the shortest exact way to write a duration, to the millisecond: 5400.0 is "1h30m"."""
    rest = round(seconds * 1000)
    if rest == 0:
        return "0s"
    written = ""
    for unit, unit_ms in _FORMAT_SECONDS:
        count, rest = divmod(rest, unit_ms)
        if count:
            written += f"{count}{unit}"
    return written


def parse_size(text: str) -> int:
    """Return the bytes that "64MiB", "64MB" or "4096" stand for; units in any case, a bare number is bytes.

    Raises:
        ValueError: the text is no size, or no whole number of bytes.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(text)
    unit = _BYTES.get(match[2].upper() or "B")
    if unit is None:
        raise ValueError(text)
    size = float(match[1]) * unit if "." in match[1] else int(match[1]) * unit
    if size != int(size):
        raise ValueError(text)
    return int(size)


def format_size(size_bytes: int) -> str:
    """Return the shortest exact way to write a size: 67108864 is "64MiB", 1500 is "1500"."""
    for unit, unit_bytes in _FORMAT_BYTES:
        if size_bytes and size_bytes % unit_bytes == 0:
            return f"{size_bytes // unit_bytes}{unit}"
    return str(size_bytes)
