from __future__ import annotations

import pytest

from replicad.sqlite.versions import is_vulnerable, version_text


@pytest.mark.parametrize("version", ["3.7.0", "3.40.1", "3.44.5", "3.45.0", "3.50.6", "3.51.2"])
def test_versions_with_the_wal_reset_bug(version: str) -> None:
    """A version from 3.7.0 to 3.51.2 carries the bug, but for the branches it was mended in (#1432)."""
    assert is_vulnerable(version)


@pytest.mark.parametrize("version", ["3.6.23", "3.44.6", "3.44.7", "3.50.7", "3.51.3", "3.52.0", "4.0.0"])
def test_versions_without_it(version: str) -> None:
    """Versions before the WAL, the mended branches and everything from 3.51.3 on do not."""
    assert not is_vulnerable(version)


def test_a_version_number() -> None:
    """SQLite's number in the database header reads as people write it."""
    assert version_text(3_045_001) == "3.45.1"
    assert version_text(3_051_003) == "3.51.3"
