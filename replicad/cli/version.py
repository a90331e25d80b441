"""`replicad version`."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from replicad import __version__
from replicad.cli.flags import command

if TYPE_CHECKING:
    from replicad.cli.invocation import Invocation


@command(settings=(), examples=("replicad version --json",), required=())
def version(invocation: Invocation) -> None:
    """Show the versions of replicad and of what it is built on.

    The SQLite named here is the one that replicad brings; the application's own may be another, see
    `replicad doctor`.
    """
    import apsw  # noqa: PLC0415 - only this command and what opens databases need it

    versions = {
        "replicad": __version__,
        "sqlite": apsw.sqlite_lib_version(),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    invocation.answer(dict(versions), "\n".join(f"{name} {text}" for name, text in versions.items()))
