"""A `--timeout` in the units of the settings."""

from __future__ import annotations

import click

from replicad.config.units import parse_duration

MAX_SECONDS = 3600.0


class Duration(click.ParamType[float]):
    """A duration from 0s to 1h, as float seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds, or fail as click expects it."""
        try:
            seconds = parse_duration(str(value)) if not isinstance(value, float) else value
        except ValueError:
            self.fail(f"expected a duration such as 500ms, 10s or 5m, found {value!r}", param, ctx)
        if seconds > MAX_SECONDS:
            self.fail(f"expected at most 1h, found {value!r}", param, ctx)
        return seconds


DURATION = Duration()
