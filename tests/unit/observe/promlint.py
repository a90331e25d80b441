"""The rules of `promtool check metrics` (prometheus/client_golang, promlint), over parsed families."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client import Metric

_BASE_UNITS = (
    "amperes",
    "bytes",
    "celsius",
    "grams",
    "joules",
    "kelvin",
    "meters",
    "metres",
    "moles",
    "seconds",
    "volts",
)
_OTHER_UNITS = {
    "minutes": "seconds",
    "hours": "seconds",
    "days": "seconds",
    "weeks": "seconds",
    "kelvins": "kelvin",
    "fahrenheit": "celsius",
    "rankine": "celsius",
    "inches": "meters",
    "yards": "meters",
    "miles": "meters",
    "bits": "bytes",
    "calories": "joules",
    "pounds": "grams",
    "ounces": "grams",
}
_PREFIXES = (
    *("pico", "nano", "micro", "milli", "centi", "deci", "deca", "hecto", "kilo", "kibi", "mega", "mibi", "mebi"),
    *("giga", "gibi", "tera", "tebi", "peta", "pebi"),
)
_ABBREVIATIONS = {"s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "pb", "m", "h", "d"}
_CAMEL = re.compile(r"[a-z][A-Z]")
_RESERVED = ("_bucket", "_count", "_sum")
_TYPES = ("gauge", "counter", "histogram", "summary")


def problems(families: Iterable[Metric]) -> list[str]:
    """Return what promtool would complain about, as "name: complaint"."""
    seen: set[str] = set()
    found = []
    for family in families:
        # The parser takes the suffix off a counter's name; promtool looks at the name as exposed.
        exposed = {sample.name for sample in family.samples} or {family.name}
        name = f"{family.name}_total" if family.type == "counter" and f"{family.name}_total" in exposed else family.name
        if name in seen:
            found.append(f"{name}: exposed twice")
        seen.add(name)
        found += [f"{name}: {complaint}" for complaint in _complaints(name, family)]
    return found


def _complaints(name: str, family: Metric) -> Iterator[str]:
    if not family.documentation:
        yield "no help text"
    if family.type == "counter" and not name.endswith("_total"):
        yield 'counter metrics should have "_total" suffix'
    if family.type != "counter" and name.endswith("_total"):
        yield 'non-counter metrics should not have "_total" suffix'
    if family.type not in {"histogram", "summary"} and name.endswith(_RESERVED):
        yield "non-histogram metrics should not have a reserved suffix"
    if any(kind in name.split("_") for kind in _TYPES):
        yield "metric name should not include type"
    if ":" in name:
        yield "metric names should not contain ':'"
    labels = {label for sample in family.samples for label in sample.labels}
    if any(_CAMEL.search(text) for text in (name, *labels)):
        yield "names and labels should be in snake_case"
    if family.type != "histogram" and labels & {"le"}:
        yield 'non-histogram metrics should not have "le" label'
    yield from _unit_complaints(name)


def _unit_complaints(name: str) -> Iterator[str]:
    words = name.split("_")
    if _ABBREVIATIONS & set(words):
        yield "metric names should not contain abbreviated units"
    for word in words:
        if word in _OTHER_UNITS:
            yield f'use base unit "{_OTHER_UNITS[word]}" instead of "{word}"'
        for prefix in _PREFIXES:
            if word.startswith(prefix) and word.removeprefix(prefix) in (*_BASE_UNITS, *_OTHER_UNITS):
                yield f'use base unit "{word.removeprefix(prefix)}" instead of "{word}"'
