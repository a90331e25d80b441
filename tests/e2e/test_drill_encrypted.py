from __future__ import annotations

from typing import TYPE_CHECKING

from tests.e2e.test_drill import begin, heal, spoil

if TYPE_CHECKING:
    from tests.support.scene import Scene


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
