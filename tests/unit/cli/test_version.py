from __future__ import annotations

import json
from typing import TYPE_CHECKING

import apsw

from replicad import __version__

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Command


def test_versions(replicad: Command) -> None:
    """The versions of replicad, its own SQLite and Python are shown, without any setting being needed."""
    assert f"replicad {__version__}" in replicad("version").out.splitlines()
    found = json.loads(replicad("version", "--json").out)
    assert (found["replicad"], found["sqlite"]) == (__version__, apsw.sqlite_lib_version())
