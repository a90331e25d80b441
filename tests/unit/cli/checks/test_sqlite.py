from __future__ import annotations

import sqlite3

import apsw
import pytest

from replicad.cli.checks.sqlite import check_sqlite, judge
from replicad.sqlite.versions import is_vulnerable


@pytest.mark.parametrize(
    ("version", "vulnerable"),
    [
        ("3.6.23", False),
        ("3.7.0", True),
        ("3.40.1", True),
        ("3.44.5", True),
        ("3.44.6", False),
        ("3.45.0", True),
        ("3.50.6", True),
        ("3.50.7", False),
        ("3.51.0", True),
        ("3.51.2", True),
        ("3.51.3", False),
        ("3.52.0", False),
        ("4.0.0", False),
    ],
)
def test_which_versions_carry_the_wal_reset_bug(version: str, *, vulnerable: bool) -> None:
    """3.7.0 to 3.51.2 do, but for the branches that were mended."""
    assert is_vulnerable(version) is vulnerable


def test_a_vulnerable_application_is_warned_of() -> None:
    """A vulnerable version is named with where it was found, the range, and the versions to upgrade to."""
    check = judge({"sqlite3 on PATH": "3.40.1", "this Python": "3.52.0"})
    assert check.verdict == "warn"
    for part in ("sqlite3 on PATH: 3.40.1", "3.7.0 to 3.51.2"):
        assert part in check.found
    for part in ("3.51.3", "3.50.7", "3.44.6"):
        assert part in check.advice
    assert judge({"this Python": "3.52.0"}).verdict == "ok"


def test_the_libraries_of_this_machine() -> None:
    """The library that replicad brings is sound, and this Python's is among those looked at."""
    own, applications = check_sqlite()
    assert own.verdict == "ok"
    assert apsw.sqlite_lib_version() in own.found
    assert f"this Python: {sqlite3.sqlite_version}" in applications.found
