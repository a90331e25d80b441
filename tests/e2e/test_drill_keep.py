from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.e2e.test_drill import begin

if TYPE_CHECKING:
    from tests.support.scene import Scene


def test_retention_beside(scene: Scene) -> None:
    begin(scene, drill_interval="300ms", pitr_window="2s", prune_grace="0s", retention_interval="1s",
          snapshot_interval="1s", keep_last="3", sync_interval="0s")
    number = 1000
    for level in ("listing", "bodies", "drill", "listing", "bodies") * 3:
        for _ in range(20):
            scene.insert(number, size_bytes=3000)
            number += 1
        scene.daemon.snapshot()
        ended = scene.program("verify", "--level", level, "--json")
        answer = json.loads(ended.stdout)
        assert ended.returncode == 0, answer
    print(len(scene.daemon.found("objects_deleted")), len(scene.daemon.found("drill_passed")))
    assert scene.daemon.found("objects_deleted")
    assert not scene.daemon.found("damage_found")
