"""The stress proof: several writers, the real daemon, a real store, SIGKILL at random moments.

The seed is printed; REPLICAD_SEED has it again, as far as processes run the same way twice.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.trial import Conditions, Trial, chosen_seed

if TYPE_CHECKING:
    from pathlib import Path


def undergo(folder: Path, conditions: Conditions, *, seed: int, misfortunes: int) -> None:
    """Let a database live through misfortunes, and judge everything that is stored at the end."""
    with Trial(folder, f"file://{folder}/store", conditions, seed=seed) as trial:
        trial.start()
        for _ in range(misfortunes):
            trial.misfortune()
        trial.let_write(5)
        trial.freeze()
        trial.crash(daemon=False)
        assert trial.daemon.stop() == 0
        trial.judge()


@pytest.mark.parametrize(
    "conditions",
    [Conditions(), Conditions(page_size=512, auto_vacuum=1), Conditions(page_size=65536, auto_vacuum=2)],
    ids=["4096", "512 auto_vacuum", "65536 incremental"],
)
def test_every_stored_state_is_one_the_source_had(tmp_path: Path, conditions: Conditions) -> None:
    """Through crashes of daemon and writers and lost disks, each stored transaction restores to what the source had."""
    undergo(tmp_path, conditions, seed=chosen_seed(20_261_121), misfortunes=3)


@pytest.mark.soak
@pytest.mark.parametrize("round_number", range(20))
def test_the_same_for_hours(tmp_path: Path, round_number: int) -> None:
    """What holds for a few misfortunes holds for hundreds of them, with other seeds."""
    sizes = (512, 4096, 65536)
    conditions = Conditions(page_size=sizes[round_number % 3], auto_vacuum=round_number % 3)
    seed = chosen_seed(int.from_bytes(os.urandom(4), "big"))
    undergo(tmp_path, conditions, seed=seed, misfortunes=40)
