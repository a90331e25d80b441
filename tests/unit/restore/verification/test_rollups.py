from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from replicad.restore.verification.request import Level, State
from tests.support.rollups import roll_up
from tests.unit.restore.test_damage import flipped

if TYPE_CHECKING:
    from tests.unit.restore.verification.conftest import Replica


@pytest.fixture
async def rolled(replica: Replica) -> str:
    """Return the key of a roll-up of all segments, the only trace of most of them."""
    singles = [replica.keys[f"segment {txid}"] for txid in range(2, 8)]
    key = await roll_up(replica.store, singles)
    replica.put("segment 2-4", None)
    return key


@pytest.mark.parametrize("level", list(Level))
@pytest.mark.usefixtures("rolled")
async def test_a_sound_roll_up(replica: Replica, level: Level) -> None:
    """A history of which only a roll-up is left is OK at every level."""
    report = await replica.verify(level)
    assert (report.state, report.findings) == (State.OK, ())


async def test_a_damaged_roll_up(replica: Replica, rolled: str) -> None:
    """A bit flipped anywhere in a roll-up is damage, and costs what it holds."""
    sound = replica.store._objects[rolled]
    for place in range(10, len(sound[0]), len(sound[0]) // 7):
        body = sound[0][:place] + flipped(sound[0][place : place + 1]) + sound[0][place + 1 :]
        replica.store._objects[rolled] = body, sound[1]
        report = await replica.verify(Level.BODIES)
        assert [finding.key for finding in report.findings] == [rolled]
        assert [(stretch.first, stretch.last) for stretch in report.lost] == [(2, 4), (6, 7)]
