from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from replicad.cli.checks.machine import check_machine
from replicad.config import load

if TYPE_CHECKING:
    from pathlib import Path

    from replicad.cli.checks.check import Check


async def _checks(folder: Path, **flags: str) -> dict[str, Check]:
    flags = {"database": f"{folder}/app.db", "replica": "file:///x", "max_wal_bytes": "32MiB", **flags}
    found = load(flags=flags, environ={}).settings
    return {check.name: check for check in await check_machine(found, found.databases[0])}


async def test_a_folder_as_it_should_be(tmp_path: Path) -> None:
    """A writable folder reports changes, there is room, and nothing is left behind."""
    checks = await _checks(tmp_path)
    assert list(checks) == ["folder", "disk", "control socket", "stopping"]
    assert {check.verdict for check in checks.values()} == {"ok"}
    assert "reports changes" in checks["folder"].found
    assert await asyncio.to_thread(os.listdir, tmp_path) == []


async def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    """A missing folder is a failure."""
    check = (await _checks(tmp_path / "no"))["folder"]
    assert (check.verdict, check.found) == ("fail", f"{tmp_path}/no does not exist")


async def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    """A file in place of the folder is a failure, not a defect."""
    (tmp_path / "file").touch()
    assert (await _checks(tmp_path / "file"))["folder"].verdict == "fail"


async def test_less_room_than_an_outage_may_take(tmp_path: Path) -> None:
    """A disk smaller than max_wal_bytes is a warning that names the setting."""
    check = (await _checks(tmp_path, max_wal_bytes="1TiB"))["disk"]
    assert check.verdict == "warn"
    assert "max_wal_bytes" in check.found


async def test_a_socket_path_that_is_too_long(tmp_path: Path) -> None:
    """A control socket that the kernel will not take is found before the start."""
    check = (await _checks(tmp_path, control_socket=f"{tmp_path}/{'x' * 108}"))["control socket"]
    assert check.verdict == "fail"


async def test_timeouts_beyond_the_platforms_grace(tmp_path: Path) -> None:
    """Timeouts that add up to more than the usual grace period are a warning."""
    check = (await _checks(tmp_path, stop_timeout="20s", flush_timeout="20s"))["stopping"]
    assert check.verdict == "warn"
    assert "40s together" in check.found
