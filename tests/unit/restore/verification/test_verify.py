from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from replicad.errors import NoBackup, NoSpace
from replicad.plan.mark import Mark, encode_mark
from replicad.position import TXID, Epoch
from replicad.restore.verification.request import Ahead, Budget, Exercise, Fault, Level, Reported, State, VerifyRequest
from replicad.restore.verification.verify import Verification
from replicad.store.memory import MemoryStore
from tests.support.recorder import DATABASE_ID
from tests.unit.restore.test_damage import BREAKAGES, flipped

if TYPE_CHECKING:
    from tests.unit.restore.verification.conftest import Replica

LEVELS = list(Level)


@pytest.mark.parametrize("level", LEVELS)
async def test_a_sound_replica(replica: Replica, level: Level) -> None:
    """A sound replica is OK at every level, and nothing is left of the drill."""
    report = await replica.verify(level, assertions=("SELECT count(*) > 0 FROM t",))
    assert (report.state, report.findings, report.lost) == (State.OK, (), ())
    assert report.is_sound
    assert report.looked.objects == len(replica.store._objects)
    if level is Level.BODIES:
        assert report.looked.bodies == report.looked.objects
        assert report.cursor is None
    if level is Level.DRILL:
        assert report.drill is not None
        assert report.drill.passed
        assert report.drill.txid == 7
        assert list((replica.folder / "drill").iterdir()) == []


async def test_a_preserve_mark_is_part_of_a_replica(replica: Replica) -> None:
    """A mark is read as any object, and one that is damaged is said, though no instant is lost by that."""
    mark = Mark(txid=3, epoch=1, until_ms=9, made_ms=1, reason="a test")
    await replica.store.put(str(mark.key), encode_mark(mark))
    report = await replica.verify(Level.BODIES)
    assert (report.state, report.looked.bodies) == (State.OK, len(replica.store._objects))
    await replica.store.put(str(mark.key), b"")
    report = await replica.verify(Level.BODIES)
    assert (report.state, report.lost) == (State.DAMAGED, ())
    assert [finding.key for finding in report.findings] == [str(mark.key)]


async def test_nothing_was_ever_stored(replica: Replica) -> None:
    """An empty store is no backup, whatever the level."""
    for level in LEVELS:
        with pytest.raises(NoBackup):
            await replica.verify(level, store=MemoryStore())


@pytest.mark.parametrize(
    ("name", "state", "lost"),
    [
        ("claim", State.DAMAGED, []),
        ("start", State.LOST, []),
        ("snapshot 1", State.LOST, [(2, 4)]),  # 1 has left no trace but it
        ("segment 6", State.LOST, [(6, 7)]),
        ("segment 7", State.LOST, [(7, 7)]),
        ("chunk of 1", State.LOST, [(1, 4)]),
        ("chunk of 5", State.LOST, [(5, 7)]),
    ],
)
async def test_a_missing_object(replica: Replica, name: str, state: State, lost: list[tuple[int, int]]) -> None:
    """What is not there any more is found by the listing alone, with the instants that are gone because of it."""
    if name == "chunk of 5":
        replica.put("segment 5", None)  # else 5 is reached from snapshot 1
    replica.put(name, None)
    report = await replica.verify()
    assert report.state is state
    assert not report.is_sound
    assert [(stretch.first, stretch.last) for stretch in report.lost] == lost
    assert any(finding.fault is Fault.MISSING for finding in report.findings)


@pytest.mark.parametrize("name", ["segment 3", "segment 2-4", "segment 5", "snapshot 5", "end"])
async def test_a_missing_object_that_nothing_needs(replica: Replica, name: str) -> None:
    """Where another way leads to every instant nothing is lost; that a segment was ever there nothing tells."""
    replica.put(name, None)
    for level in LEVELS:
        assert (await replica.verify(level)).state is State.OK


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("start", []),
        ("snapshot 1", [(1, 4)]),
        ("snapshot 5", []),
        ("segment 6", [(6, 7)]),
        ("segment 3", []),
        ("chunk of 1", [(1, 4)]),
        ("chunk of 5", []),
    ],
)
@pytest.mark.parametrize("breakage", [name for name in BREAKAGES if name != "missing"])
async def test_a_damaged_object(replica: Replica, name: str, lost: list[tuple[int, int]], breakage: str) -> None:
    """What is there and not what it should be is found by reading it, and whether another way leads around it."""
    replica.put(name, BREAKAGES[breakage](replica.body(name)))
    report = await replica.verify(Level.BODIES)
    assert report.state is State.DAMAGED
    assert [(stretch.first, stretch.last) for stretch in report.lost] == lost
    (finding,) = report.findings
    assert (finding.key, finding.fault) == (replica.keys[name], Fault.DAMAGED)
    assert finding.has_other_way is not bool(lost)
    if name != "start":
        assert finding.served is not None


@pytest.mark.parametrize("level", [Level.BODIES, Level.DRILL])
async def test_a_version_that_is_not_there_yet(replica: Replica, level: Level) -> None:
    """A segment of a later format, which a flipped bit can make of any, is one that cannot be used."""
    body = bytearray(replica.body("segment 6"))
    body[-16] ^= 8  # the version in the trailer
    replica.put("segment 6", bytes(body))
    report = await replica.verify(level)
    assert report.state is State.DAMAGED
    assert [finding.key for finding in report.findings] == [replica.keys["segment 6"]]
    assert "version" in report.findings[0].problem
    assert [(stretch.first, stretch.last) for stretch in report.lost] == [(6, 7)]


@pytest.mark.parametrize("name", ["claim", "end"])
async def test_a_damaged_record(replica: Replica, name: str) -> None:
    """A claim or an end that cannot be read is damage, and costs no instant."""
    replica.put(name, replica.body(name)[:-20])
    report = await replica.verify(Level.BODIES)
    assert report.state is State.DAMAGED
    assert [finding.key for finding in report.findings] == [replica.keys[name]]
    assert report.lost == ()


@pytest.mark.parametrize(
    ("name", "other"), [("segment 6", "segment 7"), ("chunk of 1", "chunk of 5"), ("snapshot 1", "snapshot 5")]
)
async def test_an_object_in_anothers_place(replica: Replica, name: str, other: str) -> None:
    """A sound object under another's key is damage."""
    replica.put(name, replica.body(other))
    report = await replica.verify(Level.BODIES)
    assert report.state is State.DAMAGED
    assert [finding.key for finding in report.findings] == [replica.keys[name]]


async def test_another_databases_objects(replica: Replica) -> None:
    """A segment of another database, sound by itself and of the very same transactions, is damage."""
    replica.put("segment 6", replica.recorder.encode_segment(6, 6, database_id="another"))
    report = await replica.verify(Level.BODIES)
    assert [finding.problem for finding in report.findings] == ["database_id: expected 0f1e2d3c, found another"]


async def test_neighbours_that_contradict_one_another(replica: Replica) -> None:
    """A segment that is whole, and begins with another state than the one before ends with, is damage.

    Each of both is sound by itself, so it is only found by holding them against one another.
    """
    sound = replica.recorder.transactions[5]
    replica.recorder.transactions[5] = type(sound)(
        **{name: getattr(sound, name) for name in sound.__slots__} | {"checksum": sound.checksum ^ 1}
    )
    replica.put("segment 6", replica.recorder.encode_segment(6, 6))
    report = await replica.verify(Level.BODIES)
    assert report.state is State.DAMAGED
    assert replica.keys["segment 6"] in {finding.key for finding in report.findings}
    assert "state after TXID 5" in report.findings[0].problem


async def test_a_drill_finds_all_that_is_wrong_with_the_newest_state(replica: Replica) -> None:
    """Damage that a drill meets is named object by object, though the restore gives up at the first."""
    broken = ("segment 6", "segment 7")
    for name in broken:
        replica.put(name, flipped(replica.body(name)))
    report = await replica.verify(Level.DRILL)
    assert report.state is State.DAMAGED
    assert report.drill is not None
    assert not report.drill.restored
    assert report.drill.problem
    assert {finding.key for finding in report.findings} == {replica.keys[name] for name in broken}
    assert [(stretch.first, stretch.last) for stretch in report.lost] == [(6, 7)]
    assert list((replica.folder / "drill").iterdir()) == []


async def test_a_drill_that_finds_another_way(replica: Replica) -> None:
    """A drill that leads around a damaged object passes, and still tells of it."""
    replica.put("chunk of 5", flipped(replica.body("chunk of 5")))
    report = await replica.verify(Level.DRILL)
    assert report.drill is not None
    assert report.drill.passed
    assert report.state is State.DAMAGED
    assert [finding.key for finding in report.findings] == [replica.keys["chunk of 5"]]
    assert report.findings[0].has_other_way


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("SELECT count(*) FROM t WHERE id < 0", "0"),
        ("SELECT 1 FROM t", "more than one row"),
        ("SELECT 1 FROM t WHERE id < 0", "no row"),
        ("SELECT NULL", "None"),
        ("SELECT 1 FROM missing", "no such table: missing"),
        ("DELETE FROM t", "attempt to write a readonly database"),
        ("ATTACH ':memory:' AS other", "too many attached databases - max 0"),
        (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n",
            "no answer within 0.2 s",
        ),
    ],
)
async def test_an_assertion_that_does_not_hold(replica: Replica, sql: str, found: str) -> None:
    """An assertion holds only when it returns one row with a 1; nothing it says can write, or take for ever."""
    exercise = Exercise(
        folder=replica.folder / "drill", name="app.db", assertions=("SELECT 'true'", sql), assertion_timeout_seconds=0.2
    )
    report = await Verification(replica.store, VerifyRequest(level=Level.DRILL, exercise=exercise)).run()
    assert report.state is State.OK
    assert report.drill is not None
    assert [(answer.holds, answer.found) for answer in report.drill.answers] == [(True, "true"), (False, found)]
    assert not report.is_sound


async def test_no_room_for_a_drill(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    """A drill refuses to begin when its folder has no room for the database and a margin, and leaves nothing."""
    monkeypatch.setattr("replicad.restore.drill.free_bytes", lambda _: 1 << 20)
    with pytest.raises(NoSpace):
        await replica.verify(Level.DRILL)
    assert list((replica.folder / "drill").iterdir()) == []


def reported(txid: int, epoch: int = 1) -> Reported:
    """Return what an owner may have reported."""
    return Reported(database_id=DATABASE_ID, epoch=Epoch(epoch), txid=TXID(txid))


async def test_the_store_is_behind_what_was_reported_durable(replica: Replica) -> None:
    """What was reported durable and is not in the listing is lost, though the listing has no gap of its own."""
    assert (await replica.verify(reported=reported(7))).state is State.OK
    report = await replica.verify(reported=reported(9))
    assert report.state is State.LOST
    assert [(stretch.first, stretch.last) for stretch in report.lost] == [(8, 9)]
    assert (await replica.verify(reported=reported(9, epoch=2))).state is State.OK  # of another line


async def test_a_mirror_that_lags(replica: Replica) -> None:
    """What is durable in the replica and not in its mirror yet is no loss: it is told, with what waits to be sent."""
    assert (await replica.verify(mirrored=reported(7))).state is State.OK
    for epoch in (1, 2):
        report = await replica.verify(mirrored=reported(9, epoch=epoch))
        assert (report.state, report.ahead) == (State.NOT_YET_UPLOADED, Ahead(transactions=2))
    waiting = Ahead(transactions=3, bytes=100)
    assert (await replica.verify(mirrored=reported(9), ahead=waiting)).ahead == Ahead(transactions=5)
    assert (await replica.verify(mirrored=reported(7), ahead=waiting)).ahead == waiting
    assert (await replica.verify(mirrored=reported(9), ahead=Ahead(bytes=100))).ahead == Ahead(transactions=2)
    assert (await replica.verify(mirrored=replace(reported(9), database_id="another"))).state is State.OK
    replica.put("segment 6", None)
    assert (await replica.verify(mirrored=reported(9))).state is State.LOST


async def test_a_local_database_that_is_ahead(replica: Replica) -> None:
    """What waits to be sent is no damage, and is told."""
    report = await replica.verify(ahead=Ahead(transactions=3))
    assert report.state is State.NOT_YET_UPLOADED
    assert report.is_sound
    assert (await replica.verify(ahead=Ahead(transactions=0, bytes=0))).state is State.OK
    replica.put("segment 7", None)
    assert (await replica.verify(ahead=Ahead(transactions=3))).state is State.LOST


async def test_a_gap_before_the_promised_window(replica: Replica) -> None:
    """Between snapshots that are kept from before the window nothing is missed; in the window everything is."""
    for name in ("segment 2", "segment 3", "segment 2-4"):
        replica.put(name, None)
    at = {txid: found.ms for txid, found in replica.recorder.transactions.items()}
    assert (await replica.verify(promised_ms=at[5])).state is State.OK
    for promised_ms in (None, at[4], at[1]):
        assert (await replica.verify(promised_ms=promised_ms)).state is State.LOST


# --- budgets -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [Budget(share=0.3), Budget(bytes=40_000), Budget(seconds=0.0), Budget(share=1e-9)])
async def test_runs_that_go_on_where_the_last_one_stopped(replica: Replica, budget: Budget) -> None:
    """However small the budget, every run reads something, and together they read each object once."""
    cursor, bodies, runs = None, 0, 0
    while cursor is not None or not runs:
        report = await replica.verify(Level.BODIES, budget=budget, cursor=cursor)
        assert report.state is State.OK
        assert report.looked.bodies > 0 or report.cursor is None
        bodies, runs, cursor = bodies + report.looked.bodies, runs + 1, report.cursor
    assert bodies == len(replica.store._objects)
    assert runs > 2


async def test_a_limited_run_reads_no_more_than_it_may(replica: Replica) -> None:
    """Of a budget no byte more is spent, as long as the first object fits into it."""
    report = await replica.verify(Level.BODIES, budget=Budget(bytes=60_000))
    assert 0 < report.looked.body_bytes <= 60_000
    assert report.cursor is not None
    assert report.cursor.read_bytes == report.looked.body_bytes


async def test_a_state_is_held_against_the_one_that_an_earlier_run_ended_with(replica: Replica) -> None:
    """Neighbours that were read by two runs are held against one another too."""
    sound = replica.recorder.transactions[5]
    replica.recorder.transactions[5] = type(sound)(
        **{name: getattr(sound, name) for name in sound.__slots__} | {"checksum": sound.checksum ^ 1}
    )
    replica.put("segment 6", replica.recorder.encode_segment(6, 6))
    cursor, problems = None, []
    for _ in range(100):
        report = await replica.verify(Level.BODIES, budget=Budget(bytes=1), cursor=cursor)
        problems += [finding.problem for finding in report.findings if finding.key == replica.keys["segment 6"]]
        cursor = report.cursor
        if cursor is None:
            break
    assert len(problems) == 1
    assert "state after TXID 5" in problems[0]
