from __future__ import annotations

import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import pytest
import structlog

from replicad.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Iterator


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


@pytest.fixture
def program() -> Command:
    """Run a command line as a user does, in a process of its own."""

    def run(*arguments: str, **environ: str) -> Ended:
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

    return run
