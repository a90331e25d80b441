"""How much a verification may read, as flags."""

from __future__ import annotations

import click

from replicad.config.units import parse_duration, parse_size

_WHOLE = 100.0


class Share(click.ParamType[float]):
    """A percentage above 0% up to 100%, as a share of 1."""

    name = "percentage"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the share, or fail as click expects it."""
        text = str(value).strip()
        try:
            percent = float(text.removesuffix("%")) if text.endswith("%") else 0.0
        except ValueError:
            percent = 0.0
        if not 0.0 < percent <= _WHOLE:
            self.fail(f"expected a percentage such as 10%, above 0% up to 100%, found {value!r}", param, ctx)
        return percent / _WHOLE


class Size(click.ParamType[int]):
    """A size of at least one byte."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes, or fail as click expects it."""
        try:
            size_bytes = parse_size(str(value))
        except ValueError:
            size_bytes = 0
        if size_bytes < 1:
            self.fail(f"expected a size such as 512MiB or 1GiB, found {value!r}", param, ctx)
        return size_bytes


class LongDuration(click.ParamType[float]):
    """A duration of any length."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds, or fail as click expects it."""
        try:
            return parse_duration(str(value))
        except ValueError:
            self.fail(f"expected a duration such as 30s, 5m or 2h, found {value!r}", param, ctx)


SHARE = Share()
SIZE = Size()
LONG_DURATION = LongDuration()
