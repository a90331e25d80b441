"""The entry point: finds the command, runs it, and turns every ending into one message and an exit code."""

from __future__ import annotations

import json
import os
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from itertools import pairwise
from typing import TYPE_CHECKING

import click

from replicad.errors import ReplicadError
from replicad.observe.scrub import Scrubber

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

COMMANDS = {
    "run": "Replicate, in front of an application or beside it.",
    "restore": "Bring a database back, to its last state or any earlier transaction.",
    "push": "Make a SQLite file, or a Litestream replica, the replica's newest state.",
    "sync": "Return when all that is committed now is durable.",
    "snapshot": "Have the running replicad take a snapshot now.",
    "status": "Show what the running replicad does, or what the store holds.",
    "verify": "Check that what is stored can be restored.",
    "copy": "Copy a replica to another bucket or folder, or bring a copy up to date.",
    "log": "List transactions and restore points.",
    "preserve": "Keep a state from retention until a date.",
    "prune": "Show what retention deletes and keeps, and why; delete with --confirm.",
    "wait": "Return when the running replicad is ready.",
    "doctor": "Check the store, permissions, SQLite, disk and clock, and say what to do.",
    "key": "Make an encryption key, or show which keys a replica needs.",
    "config": "Show the settings in effect and where each comes from.",
    "completion": "Print a script that completes commands in a shell.",
    "version": "Show the versions of replicad and of what it is built on.",
}

USAGE_ERROR = 64
INTERRUPTED = 130


class Commands(click.Group):
    """A group that imports a command's module when it is used: `run` need not wait for what `restore` needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - likewise
        """Return a command, or None for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        found = getattr(import_module(f"replicad.cli.{cmd_name}"), cmd_name)
        return found if isinstance(found, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - likewise
        """Write the list of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},  # as flags.HELP
    epilog="Exit codes and every setting: docs/cli.md, docs/configuration.md.",
)
@click.version_option(package_name="replicad", message="%(prog)s %(version)s")
def cli() -> None:
    """Keep SQLite alive where disks don't last: continuous replication to an object store, and the way back."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; return the exit code. What goes wrong is one message on standard error."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    ours = given[: given.index("--")] if "--" in given else given
    try:
        result = cli.main(args=given, prog_name="replicad", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has enough. Python would flush once more at exit, and complain.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - whatever it is, a user gets a message and a code
        return _report(error, as_json="--json" in ours, debug=_debugging(ours))
    return result if isinstance(result, int) else 0


def _debugging(arguments: Sequence[str]) -> bool:
    if "--debug" in arguments or os.environ.get("REPLICAD_LOG_LEVEL") == "debug":
        return True
    return ("--log-level", "debug") in pairwise(arguments) or "--log-level=debug" in arguments


def _report(error: Exception, *, as_json: bool, debug: bool) -> int:
    """Write the one message of a failure to standard error; return the exit code."""
    if debug:
        sys.stderr.write(Scrubber().text("".join(traceback.format_exception(error))))
    kind, message, exit_code = _describe(error, debug=debug)
    message = Scrubber().text(message)
    if as_json:
        click.echo(json.dumps({"error": kind, "message": message, "exit_code": exit_code}), err=True)
    else:
        click.echo(f"{click.style('replicad:', fg='red', bold=True)} {message}", err=True)
    return exit_code


def _describe(error: Exception, *, debug: bool) -> tuple[str, str, int]:
    """Return the class, the message and the exit code that stand for an exception."""
    if isinstance(error, click.ClickException):
        return "UsageError", f"{error.format_message()}{_where_help_is(error)}", USAGE_ERROR
    ours = next((leaf for leaf in _leaves(error) if isinstance(leaf, ReplicadError)), None)
    if ours is not None:
        return type(ours).__name__, str(ours), ours.exit_code
    leaf = next(_leaves(error))
    seen = "" if debug else " This is a defect of replicad; give --debug to see where, and please report it."
    return type(leaf).__name__, f"unexpected {type(leaf).__name__}: {leaf}.{seen}", 1


def _where_help_is(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f" See `{context.command_path} --help`." if isinstance(context, click.Context) else ""


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Iterate over the exceptions inside the groups that a TaskGroup makes."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
