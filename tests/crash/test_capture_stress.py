"""The stress proof: several writers, the real daemon, a real store, SIGKILL at random moments.

The seed is printed; REPLICAD_SEED has it again, as far as processes run the same way twice.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.moto_server import running_moto
from tests.support.trial import Conditions, Trial, chosen_seed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TRIALS = {
    "4096": Conditions(),
    "512 auto_vacuum": Conditions(page_size=512, auto_vacuum=1),
    "65536 incremental": Conditions(page_size=65536, auto_vacuum=2),
    "parent": Conditions(as_parent=True),
    "converted": Conditions(wal=False),
    "S3": Conditions(),
}
SOAK_TRIALS = {
    **TRIALS,
    "older SQLite": Conditions(writers=("sqlite3", "sqlite3")),  # by default there is one writer of each
    "newest SQLite": Conditions(writers=("apsw", "apsw")),
    "S3 parent": Conditions(as_parent=True, page_size=1024, auto_vacuum=2),
    "four writers": Conditions(writers=("sqlite3", "apsw", "sqlite3", "apsw")),
}
SOAK_SECONDS = 110  # of misfortunes in one trial; starting, and the judgement at the end, come on top of it


@contextlib.contextmanager
def replica_for(name: str, folder: Path) -> Iterator[str]:
    """Yield the URL of an empty replica: of a bucket behind HTTP for some trials, of a folder for the others."""
    if not name.startswith("S3"):
        yield f"file://{folder}/store"
        return
    with running_moto() as moto:
        yield moto.new_bucket_url()


def undergo(folder: Path, name: str, *, seed: int, misfortunes: int, limit_seconds: float) -> None:
    """Let a database live through misfortunes, and judge everything that is stored at the end."""
    conditions = SOAK_TRIALS[name]
    until = time.monotonic() + limit_seconds
    with replica_for(name, folder) as replica, Trial(folder, replica, conditions, seed=seed) as trial:
        if not conditions.wal:
            trial.start_writers()  # the daemon has to find a moment to convert between their transactions
        trial.start()
        trial.sync()  # a disk that is lost before anything is durable comes back empty: there is nothing to judge then
        for _ in range(misfortunes):
            trial.misfortune()
            if time.monotonic() > until:
                break
        trial.let_write(5)
        trial.freeze()
        if conditions.as_parent:
            trial.crash(daemon=False)
            # A parent ends with its application, whatever ended that: the shell says 0 when it has waited for them.
            assert trial.daemon.wait() == 0
        else:
            trial.end()
        trial.judge()


@pytest.mark.parametrize("name", TRIALS)
def test_every_stored_state_is_one_the_source_had(tmp_path: Path, name: str) -> None:
    """Through crashes of daemon and writers and lost disks, each stored transaction restores to what the source had."""
    undergo(tmp_path, name, seed=chosen_seed(20_261_121), misfortunes=3, limit_seconds=60)


@pytest.mark.soak
@pytest.mark.parametrize("name", SOAK_TRIALS)
def test_the_same_for_minutes(tmp_path: Path, name: str) -> None:
    """What holds for a few misfortunes holds for dozens of them, with other seeds each time."""
    seed = chosen_seed(int.from_bytes(os.urandom(4), "big"))
    undergo(tmp_path, name, seed=seed, misfortunes=1_000, limit_seconds=SOAK_SECONDS)
