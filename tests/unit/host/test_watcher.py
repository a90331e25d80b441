from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from replicad.host.watcher import Watch, Watcher
from tests.support.waiting import wait_until_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

ROOT = Path(__file__).parents[3]

FLAT_OUT = """
import os, sys, time
descriptor = os.open(sys.argv[1], os.O_RDWR)
page, number, end = b"x" * 4096, 0, time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    os.pwrite(descriptor, page, number % 1000 * 4096)
    number += 1
print(number)
"""

NO_WATCHES = """
import asyncio, sys
from pathlib import Path
from replicad.host.watcher import Watcher

async def main():
    watcher = Watcher(asyncio.get_running_loop())
    watches = [watcher.watch(Path(sys.argv[1]), ["app.db"], asyncio.Event()) for _ in range(3)]
    print(*[watch.arm() for watch in watches], *[watch.armed for watch in watches])
    await watcher.close()

asyncio.run(main())
"""


@pytest.fixture
async def watcher() -> AsyncIterator[Watcher]:
    """Return a watcher of the test's loop."""
    found = Watcher(asyncio.get_running_loop())
    yield found
    await found.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a database and its WAL."""
    (tmp_path / "app.db").write_bytes(b"database")
    (tmp_path / "app.db-wal").write_bytes(b"wal")
    return tmp_path


def database(watcher: Watcher, folder: Path, name: str = "app.db") -> tuple[Watch, asyncio.Event]:
    """Return a watch on one database's files, and the event that it sets."""
    changed = asyncio.Event()
    return watcher.watch(folder, [name, f"{name}-wal"], changed), changed


def append(path: Path) -> None:
    """Write to a file as SQLite does: in place, without renaming."""
    with path.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(b"more")


async def is_quiet(watcher: Watcher, folder: Path, changed: asyncio.Event) -> bool:
    """Return whether the event is still not set once a later change of another file was seen."""
    canary, sang = database(watcher, folder, "canary")
    canary.arm()
    (folder / "canary").write_bytes(b"")
    await asyncio.wait_for(sang.wait(), 10)
    (folder / "canary").unlink()
    return not changed.is_set()


CHANGES = {
    "written": lambda folder: append(folder / "app.db-wal"),
    "truncated": lambda folder: os.truncate(folder / "app.db-wal", 0),
    "other file written": lambda folder: append(folder / "app.db"),
    "deleted": lambda folder: (folder / "app.db-wal").unlink(),
    "renamed": lambda folder: (folder / "app.db").rename(folder / "elsewhere"),
    "replaced": lambda folder: (folder / "new").rename(folder / "app.db"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_change_wakes(watcher: Watcher, folder: Path, change: Callable[[Path], object]) -> None:
    """Whatever happens to one of the files sets the event, and disarms the watch."""
    (folder / "new").write_bytes(b"another file")
    watch, changed = database(watcher, folder)
    assert watch.arm()
    change(folder)
    await asyncio.wait_for(changed.wait(), 10)
    assert not watch.armed


async def test_file_that_appears(watcher: Watcher, tmp_path: Path) -> None:
    """A file that did not exist when the watch was armed sets the event when it is created, and later when written."""
    watch, changed = database(watcher, tmp_path)
    assert watch.arm()
    (tmp_path / "app.db").touch()
    await asyncio.wait_for(changed.wait(), 10)
    changed.clear()
    assert watch.arm()
    append(tmp_path / "app.db")
    await asyncio.wait_for(changed.wait(), 10)


async def test_other_files_do_not_wake(watcher: Watcher, folder: Path) -> None:
    """Neither other names in the folder nor the writes of a busy neighbour set the event."""
    (folder / "busy.db-wal").touch()
    watch, changed = database(watcher, folder)
    neighbour, neighbour_changed = database(watcher, folder, "busy.db")
    assert watch.arm()
    assert neighbour.arm()
    append(folder / "busy.db-wal")
    (folder / "app.db-journal").touch()
    await asyncio.wait_for(neighbour_changed.wait(), 10)
    assert await is_quiet(watcher, folder, changed)
    assert watch.armed


async def test_disarmed_is_quiet(watcher: Watcher, folder: Path) -> None:
    """A disarmed watch sets nothing, and can be armed again."""
    watch, changed = database(watcher, folder)
    assert watch.arm()
    assert watch.arm()
    watch.disarm()
    watch.disarm()
    append(folder / "app.db-wal")
    (folder / "app.db").unlink()
    assert await is_quiet(watcher, folder, changed)
    assert watch.arm()
    append(folder / "app.db-wal")
    await asyncio.wait_for(changed.wait(), 10)


async def test_two_watches_on_one_file(watcher: Watcher, folder: Path) -> None:
    """Two that watch one file are both told, and one that disarms does not silence the other."""
    (first, first_changed), (second, second_changed) = database(watcher, folder), database(watcher, folder)
    assert first.arm()
    assert second.arm()
    append(folder / "app.db-wal")
    await asyncio.wait_for(first_changed.wait(), 10)
    await asyncio.wait_for(second_changed.wait(), 10)
    second_changed.clear()
    assert first.arm()
    assert second.arm()
    first.disarm()
    append(folder / "app.db-wal")
    await asyncio.wait_for(second_changed.wait(), 10)


async def test_folder_that_goes_away(watcher: Watcher, tmp_path: Path) -> None:
    """A folder that is deleted or renamed sets the event; arming fails until it is there again."""
    folder = tmp_path / "databases"
    folder.mkdir()
    watch, changed = database(watcher, folder)
    for vanish in (folder.rmdir, lambda: folder.rename(tmp_path / "elsewhere")):
        assert watch.arm()
        vanish()
        await asyncio.wait_for(changed.wait(), 10)
        changed.clear()
        assert not watch.arm()
        assert not watch.armed
        folder.mkdir()
    assert watch.arm()
    (folder / "app.db").touch()
    await asyncio.wait_for(changed.wait(), 10)


async def test_busy_writer_costs_nothing(watcher: Watcher, folder: Path) -> None:
    """A process that writes flat out costs one event, even while the event loop is busy and cannot disarm.

    Seen to fail without IN_ONESHOT in the file mask: the reading thread took 0.4 to 0.9 s of processor time a
    second, and the writer was slowed by a third.
    """
    watch, changed = database(watcher, folder)
    assert watch.arm()
    seconds = 0.5
    before = resource.getrusage(resource.RUSAGE_SELF)
    writer = run(sys.executable, "-S", "-c", FLAT_OUT, folder / "app.db-wal", str(seconds))
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert int(writer.stdout) > 1_000
    await asyncio.wait_for(changed.wait(), 10)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.1 * seconds


async def test_arming_leaks_nothing(watcher: Watcher, folder: Path) -> None:
    """Two thousand armings, half of them fired, leave no thread, descriptor or kernel watch behind.

    Seen to fail without `remove_files` in `disarm`: a kernel watch stayed for the second file.
    """
    watch, changed = database(watcher, folder)
    watch.arm()
    threads, descriptors = threading.active_count(), descriptors_open()
    for number in range(2_000):
        watch.arm()
        if number % 2:
            append(folder / "app.db-wal")
            await changed.wait()
            changed.clear()
        else:
            watch.disarm()
    watch.disarm()
    assert threading.active_count() == threads
    assert descriptors_open() == descriptors
    await wait_until_async(lambda: not kernel_watches())
    inotify = watcher._inotify
    assert inotify is not None
    await wait_until_async(lambda: not inotify._watch_for_wd)


async def test_one_thread_for_all(watcher: Watcher, tmp_path: Path) -> None:
    """A thousand databases in as many folders take one thread and one descriptor of the kernel's."""
    threads = threading.active_count()
    watches = []
    for number in range(1_000):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "app.db").touch()
        watches.append(database(watcher, folder))
    assert all(watch.arm() for watch, _ in watches)
    assert threading.active_count() == threads + 1
    assert len(kernel_watches()) == 2_000
    append(tmp_path / "500" / "app.db")
    await asyncio.wait_for(watches[500][1].wait(), 10)
    assert not any(changed.is_set() for number, (_, changed) in enumerate(watches) if number != 500)


async def test_close(folder: Path) -> None:
    """A closed watcher has no thread, its watches are disarmed and cannot be armed."""
    watcher = Watcher(asyncio.get_running_loop())
    watch, changed = database(watcher, folder)
    assert watch.arm()
    await watcher.close()
    await watcher.close()
    assert not watch.armed
    assert not watch.arm()
    append(folder / "app.db-wal")
    assert not changed.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name == "replicad-watch"]


@pytest.mark.parametrize("limit", ["max_inotify_watches", "max_inotify_instances"])
async def test_limits_reached(tmp_path: Path, limit: str) -> None:
    """Where the kernel grants no more watches, arming says so, once in the log, and nothing fails."""
    script = f'echo 0 > /proc/sys/user/{limit} && exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh", sys.executable, "-c", NO_WATCHES]
    ran = await asyncio.to_thread(run, *command, tmp_path)
    if "unshare" in ran.stderr or "/proc/sys/user" in ran.stderr:
        pytest.skip(f"no user namespace of our own here: {ran.stderr.strip()}")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "False False False False False False"
    assert ran.stdout.count("watch_refused") == 1


async def test_no_permission(watcher: Watcher, folder: Path) -> None:
    """A file that may not be read cannot be watched, and arming says so (the kernel layer itself passes it over)."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become a user without permissions")
    watch, _ = database(watcher, folder)
    (folder / "app.db").chmod(0o600)
    for parent in (folder, *folder.parents):
        if parent.owner() == "root" and str(parent).startswith("/tmp/"):  # noqa: S108 - pytest's own
            parent.chmod(0o755)
    assert watch.arm()
    watch.disarm()
    os.seteuid(65_534)
    try:
        assert not watch.arm()
    finally:
        os.seteuid(0)
    assert not watch.armed
    assert watch.arm()


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def descriptors_open() -> int:
    """Return how many descriptors this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def kernel_watches() -> list[str]:
    """Return the inotify watches of this process, as the kernel lists them."""
    found = []
    for file in Path("/proc/self/fdinfo").iterdir():
        try:
            found += [line for line in file.read_text().splitlines() if line.startswith("inotify wd:")]
        except FileNotFoundError:  # the descriptor that listed the folder
            continue
    return found
