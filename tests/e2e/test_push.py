"""A file pushed into a replica whose daemon lives, is gone, or comes back; pushes that are killed."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.fault_proxy import Cut, FaultProxy, Rule
from tests.support.scene import connect, rows_of
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.scene import Scene

APPLICATION = ["sleep", "600"]
"""The test's own connection does the work; a sidecar without a command would not replace a file."""

BEAT = {"REPLICAD_HANDOVER_POLL_INTERVAL": "400ms", "REPLICAD_HANDOVER_TIMEOUT": "5s"}


def make(path: Path, *numbers: int) -> Path:
    """Make a database like the scene's, with other rows."""
    with contextlib.closing(connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=wal")
        connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, v)")
        for number in numbers:
            connection.execute("INSERT INTO t VALUES (?, randomblob(2000))", (number,))
    return path


def push(scene: Scene, path: Path) -> dict[str, Any]:
    """Push a file; return what is said."""
    ended = scene.program("push", str(path), "--json")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert isinstance(found, dict)
    return found


def test_a_daemon_lives(remote: Scene) -> None:
    """It stores what was committed and makes way; started again on its own disk, it goes on from the pushed state."""
    remote.daemon.environment |= BEAT
    remote.create()
    remote.daemon.start(APPLICATION)
    remote.insert(1, 2, 3)
    said = push(remote, make(remote.folder / "new.db", 7, 8))
    assert said["handed_over_by"]
    remote.close()
    remote.daemon.stop()
    remote.daemon.start(APPLICATION)
    assert rows_of(remote.database) == [7, 8]
    remote.insert(9)
    assert remote.daemon.sync() == said["txid"] + 1
    states = remote.states()
    assert [states[txid] for txid in sorted(states)[-3:]] == [[1, 2, 3], [7, 8], [7, 8, 9]]
    assert remote.check_newest() == said["txid"] + 1
    assert not remote.daemon.found("local_kept_aside")


@pytest.mark.parametrize(
    "key", [pytest.param("/start.json", marks=pytest.mark.soak), "/chunks/", "/snapshots/", "/end.json"]
)
def test_a_push_is_killed(remote: Scene, proxy: FaultProxy, key: str) -> None:
    """SIGKILL in the middle of a push: the newest state is the one before (the pushed one, once its manifest stands).

    A start finds that, and the same push goes through afterwards.
    """
    remote.daemon.environment |= BEAT
    remote.create()
    remote.daemon.start(APPLICATION)
    remote.insert(1, 2)
    remote.daemon.sync()
    remote.close()
    remote.daemon.stop()
    before = remote.history().newest()[0]
    path = make(remote.folder / "new.db", 7)
    proxy.rules.append(Rule(method="PUT", path=key, cut=Cut.DEAF))
    with subprocess.Popen(
        [sys.executable, "-m", "replicad", "push", str(path)], env=remote.daemon.environment, stderr=subprocess.DEVNULL
    ) as pushing:
        wait_until(lambda: proxy.rules[0].matched > 0, 30)
        pushing.kill()
    proxy.rules.clear()
    stands = key == "/end.json"
    assert remote.history().newest()[0] == before + stands
    remote.daemon.start(APPLICATION)
    assert rows_of(remote.database) == ([7] if stands else [1, 2])
    remote.insert(5)
    txid = remote.daemon.sync()
    assert txid == before + stands + 1
    remote.close()
    remote.daemon.stop()
    assert push(remote, path)["txid"] == txid + 1
    assert remote.states()[txid + 1] == [7]


def test_a_bucket_that_is_away(remote: Scene, proxy: FaultProxy) -> None:
    """A bucket that does not answer ends a push with 13; nothing was stored, and nothing of it is left here."""
    path = make(remote.folder / "new.db", 7)
    proxy.rules.append(Rule(cut=Cut.BEFORE))
    ended = remote.program("push", str(path))
    assert ended.returncode == 13
    proxy.rules.clear()
    assert remote.objects() == {}
    assert [one.name for one in remote.folder.iterdir() if one.name.startswith("new.db")] == ["new.db"]
