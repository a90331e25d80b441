"""One finding of the doctor."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"  # works, but something is worse than it need be
    FAIL = "fail"  # does not work, or will not
    SKIP = "skip"  # could not be checked because another check failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What was looked at, what was found, and what to do about it ("" when nothing)."""

    name: str
    verdict: Verdict
    found: str
    advice: str = ""


def ok(name: str, found: str) -> Check:
    """Return a check that found nothing wrong."""
    return Check(name=name, verdict=Verdict.OK, found=found)


def warn(name: str, found: str, advice: str) -> Check:
    """Return a check that found something to improve."""
    return Check(name=name, verdict=Verdict.WARN, found=found, advice=advice)


def fail(name: str, found: str, advice: str) -> Check:
    """Return a check that found something broken."""
    return Check(name=name, verdict=Verdict.FAIL, found=found, advice=advice)


def skip(name: str, found: str) -> Check:
    """Return a check that could not be made."""
    return Check(name=name, verdict=Verdict.SKIP, found=found)
