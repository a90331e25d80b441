from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from replicad.host.terminal import own_terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
PROGRAM = [sys.executable, "-m", "tests.support.run_application", "--"]

IN_FOREGROUND = "while [ $(cut -d ' ' -f 8 /proc/$$/stat) != $$ ]; do sleep 0.01; done"
"""A program starts shortly before it gets the foreground; until then typed signals go to replicad itself."""

CTRL_C, CTRL_Z = b"\x03", b"\x1a"


class Screen:
    """A pseudo-terminal with a session of its own on it."""

    def __init__(self, *command: str) -> None:
        self._master, slave = os.openpty()
        # setsid --ctty makes the terminal on its standard input the controlling one
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *command], stdin=slave, stdout=slave, stderr=slave, cwd=ROOT
        )
        os.close(slave)
        self.text = ""

    def type(self, keys: bytes) -> None:
        """Type something."""
        os.write(self._master, keys)

    def expect(self, text: str, deadline_seconds: float = 20.0) -> None:
        """Read until the text is there; what stands before and including it is forgotten."""
        deadline = time.monotonic() + deadline_seconds
        while text not in self.text:
            if not select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))[0]:
                pytest.fail(f"{text!r} did not appear in {self.text!r}")
            try:
                self.text += os.read(self._master, 65_536).decode()
            except OSError:  # EIO: everybody has closed the other end
                pytest.fail(f"{text!r} did not appear before the end of {self.text!r}")
        self.text = self.text[self.text.index(text) + len(text) :]

    def report(self) -> dict[str, object]:
        """Return the JSON line that the application's runner ends with, and wait for the end."""
        self.expect("\n{")
        rest = self.text
        while "}" not in rest:
            rest += os.read(self._master, 65_536).decode()
        self.process.wait(20)
        found: dict[str, object] = json.loads("{" + rest[: rest.index("}") + 1])
        return found

    def close(self) -> None:
        """End whatever is left."""
        os.close(self._master)  # hangs up
        self.process.kill()
        self.process.wait()


@pytest.fixture
def screens() -> Iterator[list[Screen]]:
    """Return a list whose screens are closed after the test."""
    found: list[Screen] = []
    yield found
    for screen in found:
        screen.close()


def test_no_terminal() -> None:
    """A process without a terminal on its standard input has none to lend."""
    script = "from replicad.host.terminal import own_terminal; print(own_terminal())"
    ran = subprocess.run(
        [sys.executable, "-c", script], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert ran.stdout == "None\n"
    assert own_terminal() is None or os.isatty(0)


def test_application_reads_the_terminal(screens: list[Screen]) -> None:
    """The application reads what is typed, and what it read is answered.

    Seen to fail without `lend`: the application was stopped by SIGTTIN and never ended.
    """
    screens.append(screen := Screen(*PROGRAM, "sh", "-c", "echo 'name?'; read name; echo \"hello $name\"; exit 3"))
    screen.expect("name?")
    screen.type(b"world\n")
    screen.expect("hello world")
    assert screen.report()["status"] == 3


def test_ctrl_c_reaches_the_application_once(screens: list[Screen]) -> None:
    """Ctrl-C is the application's, once; replicad itself goes on and has the terminal back afterwards.

    Seen to fail with the application in our own group: replicad was interrupted as well.
    """
    script = f"""
        count=0
        trap 'count=$((count + 1))' INT
        {IN_FOREGROUND}
        echo waiting:$((6 * 7))
        while [ $count -eq 0 ]; do sleep 0.02; done
        for again in 1 2 3 4 5 6 7 8 9 10; do sleep 0.02; done
        echo interrupts: $count
        exit 4
    """
    screens.append(screen := Screen(*PROGRAM, "sh", "-c", script))
    screen.expect("waiting:42")
    screen.type(CTRL_C)
    screen.expect("interrupts: 1")
    assert screen.report() == {"adopt": False, "status": 4, "flushes": 0, "stop_signal": None}


def test_ctrl_z_and_fg(screens: list[Screen], tmp_path: Path) -> None:
    """Ctrl-Z gives the shell its prompt back, and fg gives the application the terminal again.

    Seen to fail without `stop_together`: the shell waited for replicad, and nothing took keys any more.
    """
    screens.append(screen := Screen("bash", "--norc", "--noprofile", "-i"))
    (tmp_path / "script").write_text(f'{IN_FOREGROUND}; echo waiting:42; read name; echo "hello $name"')
    command = " ".join([*PROGRAM, "sh", str(tmp_path / "script")])
    screen.type(f"PS1='prompt''> '\n{command}\n".encode())
    screen.expect("waiting:42")
    screen.type(CTRL_Z)
    screen.expect("Stopped")
    screen.type(b"echo shell $((40 + 2))\n")
    screen.expect("shell 42")
    screen.type(b"fg\n")
    screen.expect("run_application")
    screen.type(b"world\n")
    screen.expect("hello world")
    screen.type(b"echo status $?.\n")
    screen.expect("status 0.")
    screen.type(b"exit\n")
    screen.process.wait(20)
