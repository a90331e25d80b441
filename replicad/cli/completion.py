"""`replicad completion`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.shell_completion import get_completion_class

from replicad.cli.flags import command
from replicad.errors import UsageError

if TYPE_CHECKING:
    from replicad.cli.invocation import Invocation


@command(
    settings=(),
    examples=(
        "replicad completion bash > /etc/bash_completion.d/replicad",
        "replicad completion zsh > ~/.zfunc/_replicad",
        "replicad completion fish > ~/.config/fish/completions/replicad.fish",
    ),
    required=(),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(invocation: Invocation, *, shell: str) -> None:
    """Print a script that completes commands in a shell.

    It asks replicad itself at each press of the tab key, so it never gets out of date.
    """
    from replicad.cli.main import cli  # noqa: PLC0415 - main imports this module

    kind = get_completion_class(shell)
    if kind is None:
        raise UsageError(where="SHELL", expected="bash, zsh or fish", found=shell, hint="Choose one of them.")
    script = kind(cli, {}, "replicad", "_REPLICAD_COMPLETE").source()
    invocation.answer({"shell": shell, "script": script}, script)
