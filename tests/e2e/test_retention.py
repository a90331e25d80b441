"""Retention by the real daemon, in a real S3 server over HTTP."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.support.scene import Scene

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.moto_server import MotoServer

AT_ONCE = {"pitr_window": "0s", "prune_grace": "0s", "min_snapshots": "1", "retention_interval": "1s"}


def test_the_daemon_and_the_commands_on_s3(tmp_path: Path, moto: MotoServer) -> None:
    """What is too old goes from the bucket by itself and on command; a preserved state and the newest one stay."""
    with Scene(tmp_path, server=moto, settings=AT_ONCE) as scene:
        scene.create()
        scene.daemon.start()
        for number in range(4):
            scene.insert(number)
            scene.daemon.sync()
            assert scene.program("snapshot").returncode == 0
            if number == 1:
                made = scene.program("preserve", "--for", "1d", "--json")
                assert made.returncode == 0, made.stderr
                preserved = json.loads(made.stdout)["preserved"]["txid"]
        scene.daemon.until("objects_deleted")
        pruned = scene.program("prune", "--confirm", "--json", "--limit", "0")
        assert pruned.returncode == 0, pruned.stderr
        (database,) = json.loads(pruned.stdout)["databases"]
        assert abs(database["clock_difference_seconds"]) < 60
        assert {one["reason"] for one in database["deleted_objects"]} <= {"outside_window", "expired", "unlisted"}
        assert len(scene.keys("snapshot")) == 2
        scene.check_newest()
        restored = scene.restore("--txid", str(preserved))
        assert restored.exists()
        assert scene.daemon.stop() == 0
        assert not {key for key in scene.objects() if key.startswith("probes/")}
        again = scene.program("prune", "--confirm", "--json")
        assert again.returncode == 0, again.stderr
        assert json.loads(again.stdout)["deleted"] is True
