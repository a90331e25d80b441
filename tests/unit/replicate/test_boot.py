"""A file, or none, and a history, or none: how the two come together at the start."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from replicad.errors import Damaged, LocalDiffers, StoreUnreachable
from replicad.layout import start_key
from replicad.ownership.records import decode_start, encode_record
from replicad.plan.target import AtTXID
from replicad.position import TXID, Epoch
from replicad.replicate.continuity import Continuity
from replicad.replicate.own import Owned, new_start, store_end
from replicad.replicate.state_file import read_state, state_path
from replicad.restore.restore import restore
from replicad.restore.standing import Standing
from tests.support.faulty_store import Faults
from tests.support.scene import rows_of
from tests.support.waiting import wait_until_async

if TYPE_CHECKING:
    from replicad.host.clock import Clock
    from replicad.restore.progress import Progress
    from replicad.restore.request import Restored, RestoreRequest
    from replicad.store.protocol import ObjectStore
    from tests.unit.replicate.conftest import Stage


async def stored(stage: Stage) -> int:
    """Leave a history of a snapshot and two transactions, and the disk it came from; return the last TXID."""
    stage.insert(0)
    await stage.start()
    await stage.until("snapshot_stored")
    stage.insert(1, 2)
    txid = await stage.sync()
    await stage.stop()
    return txid


async def start_of(stage: Stage, epoch: int) -> tuple[int, int, str]:
    """Return from which epoch and transaction an epoch continues, and the database's id."""
    key = start_key(Epoch(epoch))
    start = decode_start(await stage.store.get(key), what=key)
    return start.parent_epoch, start.parent_txid, start.database_id


async def test_neither_file_nor_history(stage: Stage) -> None:
    """A first start: an epoch without a parent, and nothing to open."""
    booted = (await stage.boot()).booted
    assert booted.first_start
    assert (booted.opened, booted.restored, list(booted.stored.known)) == (None, None, [])
    assert (await start_of(stage, 1))[:2] == (0, 0)


async def test_a_file_without_a_history(stage: Stage) -> None:
    """A file that is there is no first start; it will begin the history."""
    stage.insert(0)
    booted = (await stage.boot()).booted
    assert not booted.first_start
    assert booted.opened is not None
    assert booted.opened.opening.continuity is Continuity.LOST


async def test_an_empty_file_without_a_history(stage: Stage) -> None:
    """An empty file, as SQLite makes it at the first open, is no database yet: it is a first start."""
    stage.path.touch()
    booted = (await stage.boot()).booted
    assert booted.first_start
    assert booted.opened is None


async def test_a_history_without_a_file(stage: Stage) -> None:
    """The head is restored and followed on: the next epoch begins at the last transaction, of the same database.

    It is restored before the owner is asked; behind the claim it is found to be the head, and not restored again.
    """
    txid = await stored(stage)
    stage.lose_disk()
    booted = (await stage.boot()).booted
    assert [line["event"] for line in stage.lines if line["event"] in {"restored", "claim_created"}][-2:] == [
        "restored",
        "claim_created",
    ]
    assert booted.restored is None
    assert booted.opened is not None
    assert booted.opened.opening.continuity is Continuity.SAME
    assert (await start_of(stage, 2)) == (1, txid, (await start_of(stage, 1))[2])
    assert rows_of(stage.path) == [0, 1, 2]


@pytest.mark.usefixtures("fine_clock")
@pytest.mark.parametrize("behind", [0, 1])
async def test_what_was_restored_is_not_read_again(stage: Stage, monkeypatch: pytest.MonkeyPatch, behind: int) -> None:
    """The restore knows what it has put in place: the database is not read before it is followed.

    Nor where its owner went on until the claim, and what was restored before is led on from there.
    """
    txid = await stored(stage)
    stage.lose_disk()
    read: list[Path] = []
    monkeypatch.setattr("replicad.replicate.continuity.hashed", lambda _: read.append(stage.path))
    monkeypatch.setattr(Standing, "add", lambda *_: read.append(stage.path))

    async def restore_what_there_was(
        store: ObjectStore, request: RestoreRequest, progress: Progress, clock: Clock
    ) -> Restored:
        return await restore(store, replace(request, target=AtTXID(TXID(txid - behind))), progress, clock)

    monkeypatch.setattr("replicad.replicate.warm.restore", restore_what_there_was)
    await stage.start()
    assert len(stage.found("restored")) == 1 + behind
    assert read == []
    stage.insert(10)
    await stage.sync()
    monkeypatch.undo()
    await stage.check_newest()
    assert list((await stage.states()).values())[-1] == [0, 1, 2, 10]


async def test_each_object_is_asked_for_once(stage: Stage) -> None:
    """Behind an owner that has ended: what was listed behind the claim is what is restored, without another look."""
    await stage.begin()
    position = stage.follower.durable_position()
    await stage.stop()
    await store_end(stage.store, position, clock=stage.tools.clock)
    stage.lose_disk()
    stage.store.calls.clear()
    booted = (await stage.boot()).booted
    assert booted.restored is not None
    assert booted.manifest == booted.restored.manifest
    calls = [f"{call.verb} {call.key}" for call in stage.store.calls]
    claimed = next(n for n, call in enumerate(calls) if call.startswith("create claims/"))
    behind = calls[claimed + 1 :]
    assert [call for call in behind if call.startswith("list")] == ["list claims/", "list epochs/"]
    asked = [call for call in behind if call.startswith("get epochs/") and not call.endswith(".seg")]
    assert len(asked) == len(set(asked)) == 4, "a start, an end, a manifest, a chunk"


async def test_the_same_disk(stage: Stage) -> None:
    """A disk that is where the history is goes on at once, in the next epoch, and nothing is stored by that."""
    await stored(stage)
    before = await stage.objects()
    booted = (await stage.boot()).booted
    assert (booted.lineage.epoch, booted.restored) == (2, None)
    assert await stage.objects() == before
    assert not stage.found("owner_silent")


async def test_a_lost_state_file(stage: Stage) -> None:
    """Without the state file a database that is the head is still known as such; the next epoch begins there."""
    txid = await stored(stage)
    stage.lose_disk("-replicad")
    booted = (await stage.boot()).booted
    assert booted.restored is None
    assert booted.opened is not None
    assert booted.opened.opening.continuity is Continuity.SAME
    assert (await start_of(stage, 2))[:2] == (1, txid)


async def test_a_state_file_without_its_database(stage: Stage) -> None:
    """A state file that was left behind alone decides nothing: the head is restored."""
    await stored(stage)
    stage.lose_disk("", "-wal", "-shm")
    await stage.boot()
    assert len(stage.found("restored")) == 1
    assert rows_of(stage.path) == [0, 1, 2]


@pytest.mark.parametrize("content", [b"", b"{", b"null", b'{"version": 99}', b"\xff\xfe"])
async def test_a_state_file_that_cannot_be_read(stage: Stage, content: bytes) -> None:
    """Whatever stands in the state file, it is a hint that is believed when the rest agrees, or none."""
    await stored(stage)
    state_path(stage.path).write_bytes(content)
    booted = (await stage.boot()).booted
    assert booted.opened is not None
    assert booted.opened.opening.continuity is Continuity.SAME


async def test_another_database_at_the_path(stage: Stage) -> None:
    """A file of another history is kept under a new name, with all that belongs to it, and the head restored."""
    await stored(stage)
    stage.lose_disk()
    stage.connection.execute("CREATE TABLE other (n)")
    stage.insert(99)
    stage.close()
    booted = (await stage.boot()).booted
    assert booted.restored is not None
    kept = [Path(str(line["kept_as"])) for line in stage.found("local_kept_aside")]
    assert len(kept) == 1
    assert rows_of(kept[0]) == [99]
    assert rows_of(stage.path) == [0, 1, 2]


async def test_no_file_is_replaced_beside_an_application(stage: Stage) -> None:
    """Where an application may have the file open, a file that would have to be replaced is an error."""
    await stored(stage)
    stage.lose_disk()
    stage.insert(99)
    with pytest.raises(LocalDiffers):
        await stage.boot(may_replace=False)
    assert stage.connection.execute("SELECT n FROM t").fetchall() == [(99,)]
    stage.lose_disk()
    stage.path.touch()
    with pytest.raises(LocalDiffers):
        await stage.boot(may_replace=False)
    stage.path.unlink()
    assert (await stage.boot(may_replace=False)).booted.restored is not None
    assert not stage.found("warming_failed")


async def test_written_to_while_nobody_looked(stage: Stage) -> None:
    """What the application committed and checkpointed without us is neither lost nor kept aside: it is to be stored."""
    txid = await stored(stage)
    stage.insert(7)
    stage.connection.wal_checkpoint(mode=3)
    booted = (await stage.boot()).booted
    assert booted.restored is None
    assert booted.opened is not None
    assert booted.opened.opening.continuity is Continuity.LOST
    assert not stage.found("local_kept_aside")
    assert booted.lineage.epoch == 2
    assert [known.position.txid for known in booted.stored.known] == [txid]


async def write_alone(stage: Stage) -> None:
    """Commit and checkpoint while no replicad looks: what happened can then not be told from the WAL."""
    stage.insert(7)
    stage.connection.wal_checkpoint(mode=3)
    stage.close()


@pytest.mark.parametrize(("unnoted", "kept_aside"), [(1, False), (2, True)], ids=["crash", "rolled back"])
async def test_a_state_file_of_an_earlier_time(stage: Stage, unnoted: int, *, kept_aside: bool) -> None:
    """A crash leaves one segment that the state file does not know of; more of them show a disk of an earlier time.

    What is on such a disk is not stored over transactions that were reported durable. Seen to fail for the second while
    the claim alone decided; for the first while no segment was allowed, and a killed sidecar did not start again.
    """
    await stored(stage)
    await stage.start()
    stage.insert(99)
    await stage.sync()  # this life's epoch is claimed
    noted = await stage.tools.threads.run(state_path(stage.path).read_bytes)
    for number in range(unnoted):
        stage.insert(100 + number)
        await stage.sync()
    await stage.stop()
    await stage.tools.threads.run(state_path(stage.path).write_bytes, noted)
    await write_alone(stage)
    await stage.boot()
    assert bool(stage.found("local_kept_aside")) is kept_aside


@pytest.mark.parametrize("clean", [True, False], ids=["after a stop", "after a crash"])
async def test_killed_before_the_new_epoch_holds_anything(stage: Stage, *, clean: bool) -> None:
    """A process that is killed while the first snapshot of its epoch is under way is known at its next start.

    Seen to fail, both times, while the state file named the claim before until the first segment: the next life asked
    itself, and kept its own file aside.
    """
    await stage.begin()
    position = stage.follower.durable_position()
    await stage.stop()
    if clean:
        await store_end(stage.store, position, clock=stage.tools.clock)
    await write_alone(stage)
    stage.store.shut = ("put", "snapshots/")
    await stage.start()
    await wait_until_async(lambda: stage.store.count("put", "epochs/00000002/snapshots/"))
    await stage.stop()
    stage.store.shut = None
    booted = (await stage.boot()).booted
    assert not stage.found("local_kept_aside")
    assert not stage.found("owner_silent")
    assert booted.lineage.epoch == 3
    assert rows_of(stage.path) == [0, 1, 7]


@pytest.mark.parametrize("trace", ["start", "segment", "none"])
async def test_a_later_epoch_makes_the_claim_void(stage: Stage, trace: str) -> None:
    """A file that cannot be proven is stored only while no epoch later than the recorded one was begun or written into.

    The claim says that nobody owned between: up to the claim. What somebody wrote before the listing only that shows.
    Seen to fail, for a start and for a segment, while the claim alone decided.
    """
    await stage.begin()
    state = await stage.tools.threads.run(read_state, stage.path)
    assert state is not None
    stage.insert(2)
    await stage.sync()  # the one segment that a crash may leave unnoted
    head = stage.follower.durable_position()
    await stage.stop()
    await write_alone(stage)
    objects = await stage.objects()
    if trace == "start":
        start = decode_start(objects[start_key(Epoch(1))], what="start")
        later = new_start("any", Epoch(2), head, clock=stage.tools.clock)
        await stage.store.put(
            start_key(Epoch(2)), encode_record(msgspec.structs.replace(later, database_id=start.database_id))
        )
    elif trace == "segment":
        newest = max(key for key in objects if key.endswith(".seg"))
        await stage.store.put(newest.replace("00000001", "00000002"), objects[newest])
    owned = Owned(epoch=Epoch(3), claim_id=state.claim_id, continued=True)
    booted = (await stage.assemble(owned, state)).booted
    assert booted.opened is not None
    await stage.tools.threads.run(booted.opened.source.close)
    assert bool(stage.found("local_kept_aside")) is (trace != "none")


async def test_an_unreachable_store_decides_nothing(stage: Stage) -> None:
    """When the store fails anywhere on the way, the file stays as it is, and a later start does it all."""
    await stored(stage)
    stage.lose_disk()
    stage.insert(99)
    stage.close()
    before = stage.path.read_bytes()
    failed = 0
    for seed in range(30):
        stage.store.faults = Faults(unavailable=0.4)
        stage.store._dice.seed(seed)
        try:
            await stage.boot()
        except StoreUnreachable:
            failed += 1
        else:
            break
        kept = [*stage.path.parent.glob("app.db.diverged-*[0-9]")]
        assert stage.path.exists() or kept
        assert (stage.path if stage.path.exists() else kept[0]).read_bytes() == before
    assert failed
    stage.store.faults = Faults()
    assert (await stage.boot()).booted.opened is not None
    assert rows_of(stage.path) == [0, 1, 2]


async def test_a_crash_between_claim_and_start(stage: Stage) -> None:
    """An epoch that was claimed and never begun is no break in the line: the next one continues from the one before."""
    txid = await stored(stage)
    stage.lose_disk()
    stage.store.shut = ("put", "start.json")
    with pytest.raises(StoreUnreachable):
        await stage.boot()
    stage.store.shut = None
    stage.lose_disk()
    booted = (await stage.boot()).booted
    assert booted.lineage.epoch == 3
    assert (await start_of(stage, 3))[:2] == (1, txid)


async def test_a_damaged_head(stage: Stage) -> None:
    """A history whose newest object cannot be read is an error, and never taken for an older state or for none."""
    await stored(stage)
    newest = max(key for key in await stage.objects() if key.endswith(".seg"))
    await stage.store.store.put(newest, b"nonsense" * 100)
    stage.lose_disk()
    with pytest.raises(Damaged, match="seg"):
        await stage.boot()
    assert not stage.path.exists()
