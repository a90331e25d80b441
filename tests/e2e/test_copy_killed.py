"""A copy that is killed everywhere, and what can be restored from what it left."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from replicad.errors import Damaged, NoBackup
from replicad.plan.copying import is_history
from replicad.restore.request import RestoreRequest
from replicad.restore.restore import restore
from replicad.store.open import open_store
from replicad.store.prefixed import PrefixedStore
from tests.support.oracle import StoredHistory, read_folder

if TYPE_CHECKING:
    from tests.support.scene import Scene

_REPOSITORY = Path(__file__).parents[2]


def made(scene: Scene) -> dict[int, bytes]:
    """Let daemons make a replica of two epochs with two snapshots; return every state of it."""
    scene.create()
    scene.daemon.start()
    for number in range(8):
        scene.insert(number, size_bytes=3000)
        scene.daemon.sync()
    scene.daemon.snapshot()
    scene.insert(8, 9)
    scene.daemon.stop()
    scene.lose_disk()
    scene.daemon.start()
    scene.insert(10)
    scene.daemon.sync()
    scene.insert(11)
    scene.daemon.stop()
    return {txid: bytes(state.image) for txid, state in scene.history().states()}


async def restored(destination: str, path: Path) -> int | None:
    """Restore the last state; return its transaction, None when nothing is there yet."""
    store = await open_store(destination)
    try:
        return (await restore(PrefixedStore(store, "app.db/"), RestoreRequest(path=path, force=True))).txid
    except (NoBackup, Damaged):
        return None
    finally:
        await store.close()


def test_a_copy_killed_at_each_change_of_a_file_leaves_a_replica(scene: Scene) -> None:
    """Each life of the copy is killed a few steps further on; what stands then is some state, exactly, and never older.

    In the end everything is there, though no life was allowed to end by itself before.
    """
    states = made(scene)
    there, target = scene.folder / "copy", scene.folder / "restored.db"
    reached = lives = 0
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.run_copy_killed", scene.replica, f"file://{there}", "app.db"],
        cwd=_REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as killer:
        assert killer.stdin is not None
        assert killer.stdout is not None
        while True:
            lives += 1
            killer.stdin.write(f"{3 + lives % 5}\n")
            killer.stdin.flush()
            answer = killer.stdout.readline()
            assert answer.startswith(("killed", "done")), answer
            txid = asyncio.run(restored(f"file://{there}", target))
            assert txid is not None or not reached
            if txid is not None:
                assert target.read_bytes() == states[txid]
                assert txid >= reached
                reached = txid
            if answer.startswith("done"):
                break
        killer.stdin.close()
    assert lives >= 15
    assert reached == max(states)
    ours = {key: body for key, body in scene.objects().items() if is_history(key)}
    assert read_folder(there / "app.db") == ours
    assert StoredHistory(ours).newest()[0] == reached
