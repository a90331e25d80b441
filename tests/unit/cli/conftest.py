from __future__ import annotations

import io
import json
import logging
import os
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import structlog

from replicad.cli.main import main
from replicad.observe.logging import configure
from tests.support.warm import run_warm, warm_programs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


class Command(Protocol):
    """Runs a command line."""

    def __call__(self, *arguments: str, **environ: str) -> Ended:
        """Run it with these variables."""
        ...


@pytest.fixture(autouse=True)
def _undisturbed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep this process' variables and log set-up out of the test, and the test's out of others."""
    for name in list(os.environ):
        if name.startswith(("REPLICAD_", "AWS_")):
            monkeypatch.delenv(name)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure(level="critical", log_format="json", stream=io.StringIO())
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def replicad(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command line in this process."""

    def run(*arguments: str, **environ: str) -> Ended:
        for name, text in environ.items():
            monkeypatch.setenv(name, text)
        capsys.readouterr()
        code = main(arguments)
        captured = capsys.readouterr()
        return Ended(code=code, out=captured.out, err=captured.err)

    return run


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A replicad that runs beside a database."""

    folder: Path
    process: subprocess.Popen[str]

    @property
    def path(self) -> Path:
        """The database."""
        return self.folder / "app.db"

    @property
    def flags(self) -> tuple[str, ...]:
        """What tells a command of this database."""
        return ("--database", str(self.path), "--replica", f"file://{self.folder}/replica")

    def write(self, *statements: str) -> None:
        """Write to the database as an application would, one transaction each."""
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            for statement in statements:
                connection.execute(statement)

    def command(self, *arguments: str) -> Ended:
        """Run a command on this database, in a process of its own."""
        ended = run_warm((arguments[0], *self.flags, *arguments[1:]), os.environ)
        return Ended(code=ended.returncode, out=ended.stdout, err=ended.stderr)

    def answer(self, *arguments: str) -> dict[str, Any]:
        """Run a command that succeeds; return its JSON."""
        ended = self.command(*arguments, "--json")
        assert ended.code == 0, ended.err
        found = json.loads(ended.out)
        assert isinstance(found, dict)
        return found

    def stop(self) -> int:
        """Stop it in order; return its status."""
        self.process.terminate()
        return self.process.wait(30)


@contextmanager
def running(folder: Path, *flags: str) -> Iterator[Running]:
    """Start a replicad beside a database with an empty table, and wait until it is ready."""
    arguments = (
        "run",
        "--database",
        f"{folder}/app.db",
        "--replica",
        f"file://{folder}/replica",
        "--http-listen",
        "off",
    )
    with closing(sqlite3.connect(folder / "app.db")) as connection:
        connection.execute("PRAGMA journal_mode=wal")
        connection.execute("CREATE TABLE t (n)")
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "replicad", *arguments, *flags], stderr=log, text=True)
        found = Running(folder=folder, process=process)
        try:
            ready = found.command("wait", "--timeout", "20s")
            assert ready.code == 0, ready.err + (folder / "log").read_text()
            yield found
        finally:
            process.kill()
            process.wait(30)


@pytest.fixture(scope="session", autouse=True)
def _warm() -> Iterator[None]:
    with warm_programs():
        yield


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory) -> Running:
    """A replica with seven transactions, the n-th of which made row n - 1, and snapshots; its replicad has ended."""
    folder = tmp_path_factory.mktemp("h")
    with running(folder) as found:
        for number in range(2, 8):
            found.write(f"INSERT INTO t VALUES ({number})")
            found.answer("sync")
            if number == 4:
                found.answer("snapshot")
        assert found.stop() == 0
    return found


def run_program(*arguments: str, **environ: str) -> Ended:
    """Run a command line in a process of its own."""
    ended = subprocess.run(
        [sys.executable, "-m", "replicad", *arguments],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
    )
    return Ended(code=ended.returncode, out=ended.stdout, err=ended.stderr)


@pytest.fixture
def program() -> Command:
    """Run a command line as a user does, in a process of its own."""
    return run_program
