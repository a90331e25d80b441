from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).parents[2]

SAMPLES = """
import asyncio, subprocess, threading
from pathlib import Path

import apsw, pytest

import tests.conftest
from replicad.host import files, signals
from replicad.host.threads import Threads

tests.conftest.LEFTOVER_SECONDS = 0.2

# as if written in replicad/host/signals.py
exec(compile("def query(): apsw.Connection(':memory:').execute('select 1')", signals.__file__, "exec"))

async def test_blocking_file(tmp_path: Path) -> None:
    files.free_bytes(tmp_path)

async def test_blocking_sqlite() -> None:
    query()

@pytest.mark.may_block("in memory")
async def test_exempt() -> None:
    query()

async def test_in_a_thread() -> None:
    await asyncio.to_thread(query)

def test_without_a_loop(tmp_path: Path) -> None:
    query()
    files.free_bytes(tmp_path)

async def test_by_the_test_itself(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

left = []
go_on = threading.Event()

async def test_left_task() -> None:
    left.append(pool := Threads("pool", 1))
    left.append(asyncio.create_task(pool.run(go_on.wait, 2)))
    await asyncio.sleep(0.01)

def test_left_thread() -> None:
    left.append(thread := threading.Thread(target=go_on.wait, name="replicad-left"))
    thread.start()

def test_left_child() -> None:
    left.append(subprocess.Popen(["sleep", "60"]))

def test_end() -> None:
    go_on.set()
    left[-1].kill()
    left[-1].wait()

async def test_clean() -> None:
    pool = Threads("clean", 1)
    await pool.run(int)
    await pool.close()

@pytest.mark.soak
def test_soak() -> None:
    pass
"""

EXPECTED = {
    "test_blocking_file": "failure: blockbuster.blockbuster.BlockingError: Blocking call to",
    "test_blocking_sqlite": "failure: blockbuster.blockbuster.BlockingError: Blocking call to Connection.execute",
    "test_exempt": "",
    "test_in_a_thread": "",
    "test_without_a_loop": "",
    "test_by_the_test_itself": "",
    "test_left_task": "error: failed on teardown with",
    "test_left_thread": 'error: failed on teardown with "Failed: left running',
    "test_left_child": 'error: failed on teardown with "Failed: left running',
    "test_end": "",
    "test_clean": "",
    "test_soak": "skipped: long: set REPLICAD_SOAK=1, or run `make soak`",
}


def run_tests(folder: Path, source: str, *options: str, **variables: str) -> str:
    """Run a test file of its own under the suite's configuration and conftest; return what pytest prints."""
    file = folder / "test_sample.py"
    file.write_text(source)
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(folder)]
    ran = subprocess.run(
        [*command, "-p", "tests.conftest", "-p", "no:cacheprovider", *options, str(file)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "REPLICAD_SOAK"} | variables,
    )
    assert "INTERNALERROR" not in ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return what became of each sample: nothing when it passed, or the kind of failure and its message."""
    folder = tmp_path_factory.mktemp("samples")
    output = run_tests(folder, SAMPLES, "--junit-xml", str(folder / "report.xml"))
    assert "make soak" in output
    found = {}
    for case in ET.parse(folder / "report.xml").iter("testcase"):  # noqa: S314 - pytest's own
        first = next(iter(case), None)
        found[case.get("name", "")] = "" if first is None else f"{first.tag}: {first.get('message')}"
    return found


@pytest.mark.parametrize("sample", EXPECTED)
def test_tests_are_watched(outcomes: dict[str, str], sample: str) -> None:
    """A test whose replicad code blocks the loop, or leaves a task, thread or process, fails; no other does."""
    expected, found = EXPECTED[sample], outcomes[sample]
    assert found.startswith(expected)
    assert bool(found) == bool(expected)


def test_skips_are_always_reported(tmp_path: Path) -> None:
    """A skipped test and its reason are printed also when no report of it was asked for; soak tests run if asked."""
    source = (
        "import pytest\ndef test_it() -> None:\n    pytest.skip('no such thing here')\n"
        "@pytest.mark.soak\ndef test_long() -> None:\n    pass\n"
    )
    output = run_tests(tmp_path, source, "-rN", REPLICAD_SOAK="1")
    assert output.count("no such thing here") == 1
    assert "1 passed, 1 skipped" in output
