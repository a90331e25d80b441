"""The real daemon rolls up what it stores, in a real bucket, and everything can be restored from what is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.scene import has_ended, rows_of
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.support.scene import Scene

COMMITS = 70


def test_a_life_with_roll_ups(remote: Scene) -> None:
    """Seventy commits become a roll-up and a few segments; each is still there, also after a kill and a lost disk."""
    remote.daemon.environment |= {"REPLICAD_SYNC_INTERVAL": "0s", "REPLICAD_ROLLUP_GRACE": "1s"}
    remote.create()
    remote.daemon.start()
    remote.daemon.until("snapshot_stored")
    for number in range(COMMITS):
        remote.insert(number)
        last = remote.daemon.sync()
    assert last == COMMITS + 1
    deleted = remote.daemon.until("rolled_up_deleted")
    assert deleted["objects"] == 64
    log = sorted(key.rpartition("/")[2] for key in remote.keys("segment"))
    assert [name.endswith(".segs") for name in log] == [True, *[False] * (len(log) - 1)]
    assert len(log) == 1 + COMMITS - 64
    assert remote.states() == {txid: list(range(txid - 1)) for txid in range(1, last + 1)}
    for txid in (1, 2, 33, 65, 66, last):
        assert rows_of(remote.restore("--txid", str(txid), into=f"{txid}.db")) == list(range(txid - 1))
    told = remote.program("log", "--limit", "0").stdout
    assert sum(" transaction " in line for line in told.splitlines()) == COMMITS
    remote.close()
    pid = remote.daemon.pid
    remote.kill()
    wait_until(lambda: has_ended(pid))
    remote.lose_disk()
    remote.daemon.start()
    wait_until(remote.database.exists)
    assert remote.rows() == list(range(COMMITS))
    remote.insert(COMMITS)
    assert remote.daemon.sync() == last + 1
    remote.check_newest()
