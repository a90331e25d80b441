"""Watches over every test: nothing blocks an event loop, nothing is left running, no skip goes unseen."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import apsw
import pytest
from blockbuster import BlockBuster, BlockBusterFunction
from hypothesis import settings

import replicad

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from types import ModuleType

PACKAGE = str(Path(replicad.__file__).parent)

FIGURE = "figure"
"""The name under which a report carries what its test has measured."""

LEFTOVER_SECONDS = 3.0
"""How long a thread, process or task that is about to end is given to do so after the test."""

BLOCKING: list[tuple[type | ModuleType, str]] = [
    *((apsw.Connection, name) for name in ("execute", "executemany", "wal_checkpoint", "close", "backup")),
    *((apsw.Cursor, name) for name in ("execute", "executemany", "fetchall")),
    *((os, name) for name in ("open", "pread", "preadv", "pwrite", "pwritev", "fsync", "fdatasync", "ftruncate")),
]
"""Calls that wait for a disk or a lock and that blockbuster does not know."""

MAY_BLOCK = [
    # fork and exec of a child: asyncio's own create_subprocess_exec does it on the loop as well, and doing it in
    # a thread would let a child end before its pid is known to the reaper
    ("replicad/host/child.py", {"start"}),
    # /proc is memory: a read does not wait for a disk
    ("replicad/host/processes.py", {"read_process", "list_processes"}),
    # in a thread, which has an event loop of its own for botocore's chain of credentials
    ("replicad/store/s3_client.py", {"_find_credentials"}),
    # 32 bytes in front of a file that was written to a moment ago; a thread for it costs thirty times as much
    ("replicad/sqlite/source.py", {"glance"}),
]
"""Where our own code is allowed to make such a call on the event loop, and why."""


settings.register_profile("replicad", deadline=None)  # a shared machine stalls; the time limit per test stands
settings.load_profile("replicad")


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers that this file gives a meaning to."""
    config.addinivalue_line("markers", "may_block(reason): this test's code may block the event loop")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave long tests out, visibly, and have each asynchronous test look for tasks left over."""
    for item in items:
        if item.get_closest_marker("soak") and not os.environ.get("REPLICAD_SOAK"):
            item.add_marker(pytest.mark.skip(reason="long: set REPLICAD_SOAK=1, or run `make soak`"))
        if item.get_closest_marker("asyncio") and isinstance(item, pytest.Function):
            item.fixturenames.insert(0, "no_task_left_over")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show the figures that tests found; list what was skipped and why, also when no report of it was asked for."""
    passed = terminalreporter.stats.get("passed", [])
    figures = [str(text) for report in passed for name, text in report.user_properties if name == FIGURE]
    if figures:
        terminalreporter.section("measured")
    for figure in figures:
        terminalreporter.line(figure)
    asked_for = getattr(config.option, "reportchars", "")
    skipped = terminalreporter.stats.get("skipped", [])
    if not skipped or set(asked_for) & {"s", "a", "A"}:
        return
    terminalreporter.section("skipped, so not proven by this run")
    for report in skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        terminalreporter.line(f"{report.nodeid}: {reason}")


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Take a figure that a test has found, as a line; the lines of all that passed are shown at the end."""
    return partial(record_property, FIGURE)


@pytest.fixture(autouse=True)
def no_blocked_loop(request: pytest.FixtureRequest) -> Iterator[None]:
    """Raise BlockingError out of any call of replicad's code that would block a running event loop."""
    if request.node.get_closest_marker("may_block"):
        yield
        return
    detector = _detector()
    detector.activate()
    try:
        yield
    finally:
        detector.deactivate()


@pytest.fixture(autouse=True)
def nothing_left_running() -> Iterator[None]:
    """Fail a test that leaves one of replicad's threads, or any child process, behind."""
    threads, children = _threads(), _children()
    yield
    deadline = time.monotonic() + LEFTOVER_SECONDS
    while left := [*(_threads() - threads), *(_children() - children)]:
        if time.monotonic() > deadline:
            pytest.fail(f"left running (threads, process ids): {left}")
        time.sleep(0.01)


@pytest.fixture
async def no_task_left_over() -> AsyncIterator[None]:
    """Fail an asynchronous test that leaves a task of replicad's unfinished after its fixtures are torn down."""
    yield
    deadline = time.monotonic() + LEFTOVER_SECONDS
    while left := [task for task in asyncio.all_tasks() if _is_ours(task)]:
        if time.monotonic() > deadline:
            pytest.fail(f"tasks left unfinished: {left}")
        await asyncio.sleep(0.01)


def _detector() -> BlockBuster:
    detector = BlockBuster(replicad)
    for owner, name in BLOCKING:
        detector.functions[f"{owner.__name__}.{name}"] = BlockBusterFunction(owner, name, scanned_modules=replicad)
    for function in detector.functions.values():
        for file, names in MAY_BLOCK:
            function.can_block_in(file, names)
    return detector


def _is_ours(task: asyncio.Task[object]) -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and code.co_filename.startswith(PACKAGE)


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("replicad")}


def _children() -> set[int]:
    """Return the pids of this process's children, zombies too; none where the kernel does not list them."""
    found: set[int] = set()
    for file in Path("/proc/self/task").glob("*/children"):
        try:
            found.update(map(int, file.read_text().split()))
        except OSError:
            continue  # the thread has ended
    return found
