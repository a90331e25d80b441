from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import click

from replicad.cli.main import cli

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.cli.conftest import Command


def _flags(folder: Path) -> tuple[str, ...]:
    return ("--database", f"{folder}/app.db", "--replica", f"file://{folder}/replica", "--http-listen", "off")


def test_the_applications_status_is_passed_on(tmp_path: Path, program: Command) -> None:
    """`run` ends with the application's status, its output on the same streams, its flags its own."""
    script = "import sqlite3, sys; c = sqlite3.connect(sys.argv[2]); c.execute('create table t (n)'); c.commit()"
    brisk = ("--handover-poll-interval", "400ms", "--handover-timeout", "1500ms")  # no database: the epoch has no end
    for separator in (["--"], []):
        ended = program(
            *(
                "run",
                *_flags(tmp_path),
                *brisk,
                *separator,
                sys.executable,
                "-c",
                f"{script}; print('hello'); sys.exit(7)",
            ),
            *("--json", f"{tmp_path}/{len(separator)}.db"),
        )
        assert ended.code == 7, ended.err
        assert ended.out == "hello\n"


def test_log_lines_are_json_with_the_flag(tmp_path: Path) -> None:
    """`--json` makes the daemon's own lines JSON whatever the stream."""
    command = [sys.executable, "-m", "replicad", "run", *_flags(tmp_path), "--json", "--log-format", "console"]
    ended = subprocess.run([*command, "--", "true"], capture_output=True, check=True, text=True, timeout=60)
    assert all(line.startswith("{") for line in ended.stderr.splitlines())


def test_a_run_loads_only_what_it_needs(tmp_path: Path) -> None:
    """A whole run over a folder loads no YAML, no S3 client, no progress bar and no metrics library.

    Seen to fail with logging set up after the import of what it runs: structlog then brings rich along.
    """
    code = (
        "import sys\nfrom replicad.cli.main import main\n"
        f"assert main(['run', *{_flags(tmp_path)!r}, '--', 'true']) == 0\n"
        "heavy = {'aiobotocore', 'botocore', 'rich', 'pygments', 'dateparser', 'prometheus_client', 'yaml'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr


def test_the_help_shows_how_to_give_the_command() -> None:
    """The usage shows where the application's command stands."""
    run = cli.get_command(click.Context(cli), "run")
    assert run is not None
    assert "[--] [COMMAND]..." in run.get_usage(click.Context(run, info_name="replicad run"))
