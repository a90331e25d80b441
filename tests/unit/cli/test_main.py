from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest

from replicad import __version__
from replicad.cli import main as main_module
from replicad.cli.main import COMMANDS, cli, main
from replicad.errors import NoBackup, StoreUnreachable

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Command


def test_every_command_exists_and_explains_itself() -> None:
    """Each name of the list is a command of that name, whose help begins with its summary and has examples."""
    context = click.Context(cli)
    for name, summary in COMMANDS.items():
        found = cli.get_command(context, name)
        assert found is not None
        assert found.name == name
        assert (found.help or "").split("\n\n")[0] == summary
        help_text = found.get_help(click.Context(found, info_name=name, help_option_names=["-h", "--help"]))
        assert f"replicad {name}" in help_text
        assert "--json" in help_text


def test_the_program_runs(program: Command) -> None:
    """`python -m replicad` is the program."""
    ended = program("--version")
    assert (ended.code, ended.out, ended.err) == (0, f"replicad {__version__}\n", "")


def test_help_imports_no_command() -> None:
    """The list of commands is shown without loading what the commands need."""
    code = (
        "import sys\nfrom replicad.cli.main import main\nassert main(['--help']) == 0\n"
        "heavy = {'aiobotocore', 'aiohttp', 'apsw', 'rich', 'dateparser', 'prometheus_client', 'structlog', 'yaml'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["snyc"], "No such command 'snyc'"),
        (["run", "--sync-intervall", "1s"], "--sync-intervall"),
        (["restore", "--wal"], "No such option"),
        (["completion", "tcsh"], "tcsh"),
        (["sync", "--timeout", "soon"], "expected a duration"),
        (["sync", "--timeout", "2h"], "at most 1h"),
        (["config", "--check"], "database: expected a value"),
        (["config", "--sync-interval", "2h"], "sync_interval (--sync-interval)"),
    ],
)
def test_usage_errors_end_with_64(replicad: Command, arguments: list[str], part: str) -> None:
    """A command line that cannot be right ends with 64 and one line on standard error."""
    ended = replicad(*arguments)
    assert ended.code == 64
    assert ended.out == ""
    assert ended.err.startswith("replicad: ")
    assert part in ended.err
    assert len(ended.err.splitlines()) == 1


def test_an_error_as_json(replicad: Command) -> None:
    """With --json an error is one JSON object on standard error, also when the command line itself is wrong."""
    for arguments in (["config", "--json", "--check"], ["config", "--json", "--no-such-flag"]):
        ended = replicad(*arguments)
        error = json.loads(ended.err)
        assert (ended.code, error["error"], error["exit_code"]) == (64, "UsageError", 64)
        assert error["message"]


def _fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(main_module.cli, "get_command", lambda *_: click.Command("run", callback=fail))


@pytest.mark.parametrize(
    ("error", "code", "part"),
    [
        (NoBackup(database="app.db", store="s3://b"), 10, "There is no backup of app.db"),
        (
            ExceptionGroup("", [StoreUnreachable(store="s3://b", operation="GET", found="x")]),
            13,
            "could not be reached",
        ),
        (
            ExceptionGroup("", [ExceptionGroup("", [ValueError("x"), NoBackup(database="a", store="b")])]),
            10,
            "no backup",
        ),
        (ZeroDivisionError("division by zero"), 1, "unexpected ZeroDivisionError: division by zero"),
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(), 1, ""),
    ],
)
def test_every_ending_has_a_code(
    monkeypatch: pytest.MonkeyPatch, replicad: Command, error: BaseException, code: int, part: str
) -> None:
    """An error of ours has its own code, inside a group too; a defect is 1 and no traceback; Ctrl-C is 130."""
    _fail_with(monkeypatch, error)
    ended = replicad("run")
    assert ended.code == code
    assert part in ended.err
    assert "Traceback" not in ended.err


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, replicad: Command) -> None:
    """A traceback is shown when asked for, by flag or by log level, and not by a flag behind `--`."""
    _fail_with(monkeypatch, ZeroDivisionError("x"))
    assert "--debug" in replicad("run").err
    assert "Traceback" not in replicad("run").err
    monkeypatch.setenv("REPLICAD_LOG_LEVEL", "debug")
    assert "Traceback" in replicad("run").err


def test_an_error_shows_no_secret(monkeypatch: pytest.MonkeyPatch, replicad: Command) -> None:
    """Credentials in the message of a library are taken out, in the traceback too."""
    _fail_with(monkeypatch, OSError("GET https://b/k?X-Amz-Signature=deadbeef failed"))
    monkeypatch.setenv("REPLICAD_LOG_LEVEL", "debug")
    ended = replicad("run")
    assert "X-Amz-Signature=***" in ended.err
    assert "deadbeef" not in ended.err


def test_a_reader_that_has_enough_is_no_traceback() -> None:
    """`replicad … | head -1` ends quietly."""
    command = f"{sys.executable} -m replicad config --replica file:///x | head -1"
    ended = subprocess.run(["sh", "-c", command], capture_output=True, check=False, text=True, timeout=60)
    assert ended.stdout.startswith("SETTING")
    assert ended.stderr == ""


def test_main_returns_the_commands_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command returns is the exit code."""
    monkeypatch.setattr(main_module.cli, "get_command", lambda *_: click.Command("run", callback=lambda: 75))
    assert main(["run"]) == 75
