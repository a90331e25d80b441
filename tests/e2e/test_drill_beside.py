"""Drills and verifications beside what else an owner does: retention that deletes, encryption."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.e2e.test_drill import begin, heal, spoil

if TYPE_CHECKING:
    from tests.support.scene import Scene

RETENTION = {"pitr_window": "2s", "prune_grace": "0s", "retention_interval": "1s", "keep_last": "3"}


def test_what_retention_deletes_is_not_lost(scene: Scene) -> None:
    """While retention deletes as fast as it can no verification and no drill takes that for a loss."""
    begin(scene, drill_interval="300ms", snapshot_interval="1s", sync_interval="0s", **RETENTION)
    number = 1000
    for level in ("listing", "bodies", "drill", "listing", "bodies") * 3:
        for _ in range(20):
            scene.insert(number, size_bytes=3000)
            number += 1
        scene.daemon.snapshot()
        ended = scene.program("verify", "--level", level, "--json")
        answer = json.loads(ended.stdout)
        assert ended.returncode == 0, answer
    assert scene.daemon.found("objects_deleted")
    assert not scene.daemon.found("damage_found")


def test_an_encrypted_replica_is_drilled_verified_and_healed(scene: Scene) -> None:
    """What is encrypted is verified by its content; the child has the key from its environment."""
    key = scene.program("key", "new").stdout.strip().splitlines()[-1]
    begin(scene, drill_interval="300ms", encryption_key=key)
    scene.daemon.until("drill_passed")
    for level in ("listing", "bodies", "drill"):
        ended = scene.program("verify", "--level", level)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    other = scene.program("key", "new").stdout.strip().splitlines()[-1]
    right = scene.daemon.environment["REPLICAD_ENCRYPTION_KEY"]
    scene.daemon.environment["REPLICAD_ENCRYPTION_KEY"] = other
    assert scene.program("verify", "--level", "bodies").returncode == 12
    scene.daemon.environment["REPLICAD_ENCRYPTION_KEY"] = right
    spoil(scene, "chunk", "truncated")
    heal(scene)
