"""What a run costs and leaves behind over days: requests, descriptors, objects written twice, secrets that show."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.daemon import BRISK
from tests.support.scene import connect, has_ended, rows_of
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.support.fault_proxy import FaultProxy
    from tests.support.scene import Scene

APP = ["sleep", "600"]
IDLE_SECONDS = 3.0


@pytest.mark.parametrize("wal", ["convert", "keep"])
def test_an_idle_database_asks_nothing_of_the_bucket(remote: Scene, proxy: FaultProxy, wal: str) -> None:
    """TRAP: with nothing to store, nothing is asked of the store, however often the daemon itself is asked.

    (#1171, #1468: 480 LISTs an hour for each database.) Seen to fail with a LIST at each safety poll.
    """
    remote.daemon.environment |= {"REPLICAD_WAL": wal, "REPLICAD_SAFETY_POLL_INTERVAL": "50ms"}
    for name in BRISK:  # a look for a newcomer is the one request there is
        del remote.daemon.environment[f"REPLICAD_{name.upper()}"]
    remote.create(wal=wal == "convert")
    remote.daemon.start(APP)
    remote.daemon.until("snapshot_stored")
    remote.insert(1)
    remote.daemon.sync()
    asked = len(proxy.seen)
    deadline = time.monotonic() + IDLE_SECONDS
    while time.monotonic() < deadline:
        assert remote.daemon.status()["pending_transactions"] == 0
        remote.daemon.request("GET", "/readyz")
        remote.daemon.sync()
        assert remote.rows() == [1]
    assert [(seen.method, seen.path) for seen in proxy.seen[asked:]] == []


def test_nothing_is_written_twice(remote: Scene, proxy: FaultProxy) -> None:
    """TRAP: no key is written a second time: some stores allow one write a second and key, and history stays as it is.

    Through commits, snapshots, a crash, a redeploy and an end. Seen to fail with chunks that are
    stored already sent again.
    """
    remote.create()
    remote.insert(*range(10), size_bytes=300_000)  # several chunks
    remote.daemon.start(APP)
    remote.daemon.until("snapshot_stored")
    for number in range(10, 15):
        remote.insert(number)
        remote.daemon.sync()
        remote.daemon.snapshot()
    remote.close()
    remote.kill()
    remote.daemon.start(APP)
    remote.insert(20)
    remote.daemon.snapshot()
    remote.close()
    assert remote.daemon.stop() == 143
    remote.lose_disk()
    remote.daemon.start(APP)
    remote.insert(21)
    remote.daemon.snapshot()
    remote.close()
    assert remote.daemon.stop() == 143
    written = Counter(seen.path for seen in proxy.seen if seen.method == "PUT")
    assert len(written) > 20
    # Each claim is preceded by two creates of one random key, the second of which must be refused.
    assert {path: times for path, times in written.items() if times > 1 and "/probes/" not in path} == {}


def footprint(pid: int) -> Counter[str]:
    """Return what a process has of the kernel: open descriptors by what they are, threads, and watches on files."""
    found = Counter({"thread": sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())})
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            target = str(link.readlink())
            found["socket" if target.startswith("socket:") else target] += 1
            found["watch"] += (link.parents[1] / "fdinfo" / link.name).read_text().count("inotify wd:")
    return found


def connections_to(port: int) -> int:
    """Return how many connections to a port of this machine somebody has open, those that the other end closed too."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(1 for row in rows if int(row[2].partition(":")[2], 16) == port and row[9] != "0")  # peer, inode


def test_nothing_of_the_kernel_leaks(remote: Scene, proxy: FaultProxy) -> None:
    """TRAP: descriptors, threads and kernel watches are as many after weeks as after a minute.

    Each round is what happens on one day or another: commits, syncs, snapshots, an application that comes and goes, an
    outage, a database that is replaced, one that is gone for a while. Nothing is allowed for: all pools are full from
    the beginning, and connections to the store, which come and go, are ended before the rest is counted. Seen to
    fail with the WAL of a session that has ended left open; with a thread left by each session; with a connection to
    the store left by each; and with the watches on a file left armed that has been replaced.
    """
    remote.create()
    remote.daemon.start(arguments=("-m", "tests.support.run_full_pools", "run"))
    remote.daemon.until("snapshot_stored")

    def day(number: int) -> None:
        remote.insert(number)
        remote.daemon.sync()
        remote.daemon.snapshot()
        assert remote.daemon.status()["pending_transactions"] == 0
        outages = len(remote.daemon.found("store_unreachable"))
        proxy.refuse = True
        remote.insert(number + 1000)
        remote.daemon.until("store_unreachable", count=outages + 1)
        proxy.refuse = False
        remote.daemon.sync()
        remote.close()
        wait_until(lambda: footprint(remote.daemon.pid)["watch"])  # it is idle, and waits to be woken
        other = remote.folder / "other.db"
        with contextlib.closing(connect(other)) as connection:
            connection.executescript("PRAGMA journal_mode=wal; CREATE TABLE t (n INTEGER PRIMARY KEY, v)")
        sessions = len(remote.daemon.found("capture_started"))
        other.rename(remote.database)
        remote.daemon.until("capture_started", count=sessions + 1)
        remote.database.rename(other)
        remote.daemon.until("database_awaited", count=number + 1)
        other.rename(remote.database)
        remote.daemon.until("capture_started", count=sessions + 2)
        remote.daemon.sync()
        wait_until(is_hung_up)

    def is_hung_up() -> bool:
        if not proxy.under_way:
            proxy.hang_up()
        return not connections_to(proxy.port)

    for number in range(2):
        day(number)
    before = footprint(remote.daemon.pid)
    for number in range(2, 5):
        day(number)
    leaked: Counter[str] = Counter()

    def is_clean() -> bool:
        leaked.clear()
        leaked.update(footprint(remote.daemon.pid) - before)
        return not leaked

    with contextlib.suppress(TimeoutError):
        wait_until(is_clean)  # what is open for a moment is no leak
    assert not leaked
    remote.check_newest()


SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"  # noqa: S105 - the one of Amazon's documentation
TOKEN = "IQoJb3JpZ2luX2VjEPT//////////wEaCXVzLWVhc3QtMSJHMEUCIQ"  # noqa: S105 - likewise


def test_secrets_show_nowhere(remote: Scene, proxy: FaultProxy) -> None:
    """TRAP: no secret is in a log line at any level, a status page, a metric, a process list, an object or a file.

    Through a life with refused, failed and successful requests. Seen to fail with the token in
    a log line and nothing that takes secrets out of lines.
    """
    remote.daemon.environment |= {
        "REPLICAD_S3_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "REPLICAD_S3_SECRET_ACCESS_KEY": SECRET,
        "REPLICAD_S3_SESSION_TOKEN": TOKEN,
        "REPLICAD_LOG_LEVEL": "debug",
    }
    remote.create()
    remote.daemon.start([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
    remote.daemon.until("snapshot_stored")
    assert TOKEN in "".join(seen.head for seen in proxy.seen), "it is used"
    shown = {f"/proc/{pid}/cmdline": Path(f"/proc/{pid}/cmdline").read_text() for pid in pids(remote)}
    proxy.refuse = True
    remote.insert(1)
    remote.daemon.until("store_unreachable")
    shown |= {path: remote.daemon.page(path) for path in ("/", "/status", "/readyz", "/healthz", "/metrics")}
    proxy.refuse = False
    for command in (["status"], ["status", "--json"], ["config"], ["config", "--json"], ["log"], ["doctor"], ["sync"]):
        ended = remote.program(*command)
        shown[" ".join(command)] = ended.stdout + ended.stderr
    assert rows_of(remote.restore()) == [1]
    remote.close()
    assert remote.daemon.stop() == 143
    shown["log"] = remote.daemon.log.read_text()
    shown |= {str(path): path.read_bytes().decode("latin-1") for path in remote.disk.iterdir()}
    shown |= {key: body.decode("latin-1") for key, body in remote.objects().items()}
    assert [where for where, text in shown.items() if SECRET in text or TOKEN in text] == []
    assert all(text for where, text in shown.items() if "/disk/" not in where)


def pids(scene: Scene) -> list[int]:
    """Return the processes of the run: the daemon and its application."""
    (started,) = scene.daemon.found("app_started")
    assert not has_ended(int(str(started["pid"])))
    return [scene.daemon.pid, int(str(started["pid"]))]
