"""`replicad doctor`."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

import click

from replicad.cli.flags import command
from replicad.config import Section
from replicad.errors import StoreUnreachable, WrongKey

if TYPE_CHECKING:
    from replicad.cli.checks.check import Check
    from replicad.cli.invocation import Invocation

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red", "skip": "bright_black"}


@command(
    settings=tuple(Section),
    examples=("replicad doctor", "replicad doctor --json | jq '.checks[] | select(.advice != \"\")'"),
)
def doctor(invocation: Invocation) -> int:
    """Check the store, permissions, SQLite, disk and clock, and say what to do.

    Writes, reads, lists and deletes a few bytes below REPLICA/NAME/probes/ and creates an empty file beside
    the database for a moment; the database itself is only read. The exit code is 0 when nothing failed, 13 when
    the store did, 12 when the keys are not the replica's, else 1.
    """
    invocation.start_logging(answers_itself=True)
    groups = asyncio.run(_checks(invocation))
    checks = [(group, check) for group, found in groups.items() for check in found]
    failed = [(group, check) for group, check in checks if check.verdict == "fail"]
    exit_code = 0
    if failed:
        exit_code = _exit_code({check.name for _, check in failed})
    invocation.answer(
        {
            "healthy": not failed,
            "checks": [{"subject": group} | dataclasses.asdict(check) for group, check in checks],
            "exit_code": exit_code,
        },
        "\n".join(_lines(groups)),
    )
    return exit_code


def _exit_code(failed: set[str]) -> int:
    """Return the status that stands for the checks that failed."""
    if any(name.startswith("store") for name in failed):
        return StoreUnreachable.exit_code
    return WrongKey.exit_code if "encryption" in failed else 1


async def _checks(invocation: Invocation) -> dict[str, list[Check]]:
    # Imported here: together they need all of replicad, which `replicad doctor --help` does not.
    from replicad.cli.checks.database import check_database  # noqa: PLC0415
    from replicad.cli.checks.machine import check_machine  # noqa: PLC0415
    from replicad.cli.checks.sqlite import check_sqlite  # noqa: PLC0415
    from replicad.cli.checks.store import check_store  # noqa: PLC0415

    settings = invocation.settings
    groups = {"SQLite": await asyncio.to_thread(check_sqlite)}
    for database in settings.databases:
        groups[database.name] = [
            *await asyncio.to_thread(check_database, settings, database),
            *await check_machine(settings, database),
            *await check_store(settings, database),
        ]
    return groups


def _lines(groups: dict[str, list[Check]]) -> list[str]:
    lines = []
    for group, checks in groups.items():
        lines.append(click.style(group, bold=True))
        for check in checks:
            verdict = click.style(check.verdict.ljust(4), fg=_COLOURS[check.verdict])
            lines.append(f"  {verdict}  {check.name}: {check.found}")
            if check.advice:
                lines.append(f"        -> {check.advice}")
    return lines
