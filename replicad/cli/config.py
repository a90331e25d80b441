"""`replicad config`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from replicad.cli.flags import command
from replicad.cli.output import columns
from replicad.config import Section

if TYPE_CHECKING:
    from replicad.cli.invocation import Invocation


@command(
    settings=tuple(Section),
    examples=("replicad config", "replicad config --check && systemctl restart app", "replicad config --json"),
    required=(),
)
@click.option(
    "--check",
    is_flag=True,
    help="Only check, as `run` would, that nothing is missing, unknown or impossible. [default: off; example: --check]",
)
def config(invocation: Invocation, *, check: bool) -> None:
    """Show the settings in effect and where each comes from.

    Flags win over variables, variables over the file, the file over defaults. Credentials are shown as ***.
    """
    if check:
        invocation.require("database", "replica")
        names = ", ".join(database.name for database in invocation.settings.databases)
        invocation.answer({"valid": True}, f"The configuration is valid. Databases: {names}.")
        return
    effective = invocation.loaded.effective()
    rows = [(one.name, "-" if one.value is None else one.value, one.origin) for one in effective]
    invocation.answer(
        {one.name: {"value": one.value, "origin": one.origin} for one in effective},
        columns(("SETTING", "VALUE", "ORIGIN"), rows),
    )
