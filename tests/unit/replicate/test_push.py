from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import apsw
import pytest

from replicad.errors import DatabaseUnusable, OwnedByAnother, StoreUnreachable
from replicad.layout import claim_key
from replicad.ownership.records import Claim, decode_end, decode_start, encode_record
from replicad.ownership.timing import Timing
from replicad.position import Epoch
from replicad.replicate.continuity import Continuity
from replicad.replicate.own import highest_claim
from replicad.replicate.push import PushRequest, push, weigh
from replicad.replicate.standing import Standing
from replicad.restore.progress import Silent
from replicad.restore.request import Integrity
from replicad.snapshot import decode_manifest
from replicad.sqlite.still import Still
from tests.support.oracle import StoredHistory
from tests.support.scene import ask, rows_of
from tests.support.waiting import wait_until_async
from tests.unit.replicate.conftest import Gate, Stage

if TYPE_CHECKING:
    from pathlib import Path

    from replicad.replicate.push import Pushed
    from replicad.restore.progress import Progress
    from replicad.snapshot import Manifest

TIMING = Timing(
    poll_seconds=0.1,
    newcomer_poll_seconds=0.025,
    slack_seconds=0.1,
    handover_timeout_seconds=1.0,
    patience_seconds=20.0,
)
REQUEST = PushRequest(database="app.db", instance="a desk", reason="pushed", timing=TIMING, fencing="auto")


def make(path: Path, *numbers: int, mode: str = "wal", page_size: int = 4096, size_bytes: int = 100) -> Path:
    """Make a database in a file of its own, with a row for each number."""
    connection = apsw.Connection(str(path))
    connection.pragma("page_size", page_size)
    connection.pragma("journal_mode", mode)
    connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, v)")
    connection.execute("BEGIN")
    for number in numbers:
        connection.execute("INSERT INTO t VALUES (?, randomblob(?))", (number, size_bytes))
    connection.execute("COMMIT")
    connection.close()
    return path


def image_of(path: Path) -> bytes:
    """Return what SQLite reads."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return connection.serialize("main")
    finally:
        connection.close()


async def pushed(
    stage: Stage,
    path: Path,
    request: PushRequest = REQUEST,
    progress: Progress | None = None,
    *,
    dry_run: bool = False,
) -> Pushed:
    """Push a file into the stage's replica."""
    source = await asyncio.to_thread(Still, path)
    try:
        return await (weigh if dry_run else push)(stage.store, source, request, progress or Silent(), stage.tools.clock)
    finally:
        await asyncio.to_thread(source.close)


async def newest(stage: Stage) -> tuple[int, bytes]:
    """Return the newest stored state and its transaction; everything that is recorded is checked."""
    txid, state = StoredHistory(await stage.objects()).newest()
    return txid, bytes(state.image)


async def manifests(stage: Stage) -> list[Manifest]:
    """Return the stored ones, oldest first."""
    found = [(key, body) for key, body in (await stage.objects()).items() if "/snapshots/" in key]
    decoded = [decode_manifest(body, what=key) for key, body in found]
    return sorted(decoded, key=lambda one: one.txid)


async def history(stage: Stage, *, end: bool = True) -> int:
    """Store three transactions; return the TXID of the last. The daemon ends its epoch, or dies."""
    await stage.start()
    stage.insert(0)
    await stage.until("snapshot_stored")
    stage.insert(1, 2)
    txid = await stage.sync()
    if end:
        assert stage.office is not None
        await stage.follower.store_end()
    await stage.stop()
    stage.close()
    return txid


@pytest.mark.parametrize("mode", ["wal", "delete"])
async def test_a_replica_that_does_not_exist_yet(stage: Stage, tmp_path: Path, mode: str) -> None:
    """The file becomes its first transaction, and the epoch is ended: a start waits for nobody, and finds it."""
    path = make(tmp_path / "new.db", 7, 8, mode=mode)
    found = await pushed(stage, path)
    assert (found.position.epoch, found.position.txid, found.previous, found.ended) == (1, 1, None, True)
    assert await newest(stage) == (1, image_of(path))
    booted = (await stage.boot()).booted
    assert booted.restored is not None
    assert rows_of(stage.path) == [7, 8]
    assert not stage.found("handover_requested")


@pytest.mark.parametrize("mode", ["wal", "delete"])
async def test_the_history_is_kept(stage: Stage, tmp_path: Path, mode: str) -> None:
    """The state is one more transaction behind all that was there, and each of those can be restored as before."""
    txid = await history(stage)
    before = await stage.states()
    path = make(tmp_path / "new.db", 7, 8, mode=mode)
    found = await pushed(stage, path)
    assert found.position.txid == txid + 1
    assert found.previous is not None
    assert found.previous.txid == txid
    assert await stage.states() == {**before, txid + 1: [7, 8]}
    objects = await stage.objects()
    start = decode_start(objects["epochs/00000002/start.json"], what="start")
    end = decode_end(objects["epochs/00000002/end.json"], what="end")
    assert (start.parent_epoch, start.parent_txid) == (1, txid)
    assert end.position == found.position
    assert (await manifests(stage))[-1].reason == "pushed"


async def test_transactions_go_on_behind_it(stage: Stage, tmp_path: Path) -> None:
    """A replica that is continued goes on counting: behind the pushed state, in the next epoch."""
    txid = await history(stage)
    await pushed(stage, make(tmp_path / "new.db", 7))
    stage.lose_disk()
    await stage.start()
    stage.insert(9)
    assert await stage.sync() == txid + 2
    assert await stage.check_newest() == txid + 2
    assert (await stage.states())[txid + 1] == [7]


async def test_what_is_stored_is_not_sent_again(stage: Stage, tmp_path: Path) -> None:
    """Of a large file that differs little from the newest snapshot, only the chunks that differ are sent."""
    path = make(tmp_path / "new.db", *range(400), size_bytes=10_000)
    first = await pushed(stage, path)
    assert first.chunks_sent == first.chunks > 3
    connection = apsw.Connection(str(path))
    connection.execute("UPDATE t SET v = randomblob(10000) WHERE n = 200")
    connection.close()
    expected = await pushed(stage, path, dry_run=True)
    second = await pushed(stage, path)
    assert second.chunks == first.chunks
    assert 0 < second.chunks_sent <= 2
    assert abs(expected.sent_bytes - second.sent_bytes) < 100, "the manifest names another database"
    assert expected.chunks_sent == second.chunks_sent
    assert await newest(stage) == (2, image_of(path))


async def test_a_dry_run(stage: Stage, tmp_path: Path) -> None:
    """It says what would be sent, and where; nothing is stored, and nobody is asked."""
    txid = await history(stage, end=False)
    before = await stage.objects()
    found = await pushed(stage, make(tmp_path / "new.db", 7), dry_run=True)
    assert (found.position.epoch, found.position.txid) == (2, txid + 1)
    assert found.chunks_sent == 1
    assert found.sent_bytes > 0
    assert await stage.objects() == before


async def test_the_newest_state_already(stage: Stage, tmp_path: Path) -> None:
    """A file that is the newest state is not stored twice: a push can be repeated as often as wished."""
    path = make(tmp_path / "new.db", 7)
    await pushed(stage, path)
    before = await stage.objects()
    found = await pushed(stage, path)
    assert (found.same, found.position.txid, found.position.epoch) == (True, 1, 1)
    assert await stage.objects() == before


async def test_an_owner_hands_over(stage: Stage, tmp_path: Path) -> None:
    """An owner that lives ships what was committed, keeps its writers out and ends; then the file is pushed."""
    stage.insert(0)
    await stage.serve()
    await stage.until("snapshot_stored")
    stage.insert(1)
    found = await pushed(stage, make(tmp_path / "new.db", 7))
    assert found.handed_over_by
    office = stage.office
    assert office is not None
    await wait_until_async(lambda: office.standing is Standing.RETIRED)
    states = await stage.states()
    assert [states[txid] for txid in sorted(states)[-2:]] == [[0, 1], [7]]
    stage.connection.set_busy_timeout(0)
    with pytest.raises(apsw.BusyError):
        stage.insert(2)


async def test_an_owner_that_does_not_hand_over(stage: Stage, tmp_path: Path) -> None:
    """An owner that lives is not overruled: the push ends with 11, nothing is stored, the request is withdrawn."""
    txid = await history(stage, end=False)
    before = await stage.objects()

    async def say_and_do_nothing() -> None:
        for sign in range(10_000):
            await stage.store.put("handover/00000002.ack.json", str(sign).encode())
            await asyncio.sleep(0.02)

    living = asyncio.create_task(say_and_do_nothing())
    request = replace(REQUEST, timing=replace(TIMING, patience_seconds=0.6))
    with pytest.raises(OwnedByAnother, match=r"did not hand it over within 0\.6 s.*--timeout") as failed:
        await pushed(stage, make(tmp_path / "new.db", 7), request)
    living.cancel()
    await asyncio.gather(living, return_exceptions=True)
    assert failed.value.exit_code == 11
    assert (await stage.objects()).keys() - before.keys() <= {"handover/00000002.ack.json"}
    assert (await newest(stage))[0] == txid


async def test_an_owner_that_goes_on_after_a_push_gave_up(stage: Stage, tmp_path: Path) -> None:
    """A request that was withdrawn in time disturbs nobody: the application goes on writing, into its own epoch."""
    stage.flags["handover_poll_interval"] = "10s"  # it does not look between the request and its withdrawal
    stage.insert(0)
    await stage.serve()
    await stage.until("snapshot_stored")
    request = replace(REQUEST, timing=replace(TIMING, patience_seconds=0.0))
    with pytest.raises(OwnedByAnother):
        await pushed(stage, make(tmp_path / "new.db", 7), request)
    assert not [key for key in await stage.objects() if key == "handover/00000002.json"]
    await asyncio.sleep(0)
    stage.insert(1)
    await stage.sync()
    assert (await stage.states())[await stage.check_newest()] == [0, 1]


async def test_an_owner_that_is_dead(stage: Stage, tmp_path: Path) -> None:
    """Behind an owner that gives no sign of life the epoch is claimed; what it had stored is the state before."""
    txid = await history(stage, end=False)
    found = await pushed(stage, make(tmp_path / "new.db", 7))
    assert (found.position.txid, found.handed_over_by) == (txid + 1, None)
    assert stage.found("owner_silent")


@pytest.mark.parametrize("key", ["/chunks/", "/snapshots/", "/start.json", "claims/"])
async def test_a_push_that_fails_half_way(stage: Stage, tmp_path: Path, key: str) -> None:
    """Whatever could not be stored: the newest state is the one before, and the same push can simply be repeated."""
    txid = await history(stage)
    path = make(tmp_path / "new.db", 7)
    before = await newest(stage)
    assert isinstance(stage.store, Gate)
    stage.store.shut = ("create" if key == "claims/" else "put", key)
    with pytest.raises(Exception) as failed:  # noqa: PT011 - which one is told below
        await pushed(stage, path)
    assert type(failed.value).__name__ in {"StoreUnreachable", "CreateUndecided"}
    stage.store.shut = None
    assert await newest(stage) == before
    stage.lose_disk()
    found = await pushed(stage, path)
    assert found.position.txid == txid + 1
    assert await newest(stage) == (txid + 1, image_of(path))


async def test_a_start_after_a_push_that_died(stage: Stage, tmp_path: Path) -> None:
    """A push that was killed before its manifest stood leaves an epoch without a state: a start finds the old head."""
    txid = await history(stage)
    assert isinstance(stage.store, Gate)
    stage.store.shut = ("put", "/snapshots/")
    with pytest.raises(StoreUnreachable):
        await pushed(stage, make(tmp_path / "new.db", 7))
    stage.store.shut = None
    stage.lose_disk()
    await stage.start()
    assert rows_of(stage.path) == [0, 1, 2]
    stage.insert(3)
    assert await stage.sync() == txid + 1
    assert (await stage.states())[txid + 1] == [0, 1, 2, 3]


async def test_an_end_that_could_not_be_stored(stage: Stage, tmp_path: Path) -> None:
    """Without the end of its epoch the push has done its work all the same, and says what is missing."""
    assert isinstance(stage.store, Gate)
    stage.store.shut = ("put", "/end.json")
    found = await pushed(stage, make(tmp_path / "new.db", 7))
    assert not found.ended
    stage.store.shut = None
    assert (await newest(stage))[0] == 1
    again = await pushed(stage, make(tmp_path / "same.db", 7))
    assert again.position.txid == 2


class Overtaking(Gate):
    """A store in which another instance claims the next epoch before the first object with a text in its key."""

    text = ""

    async def _begin(self, verb: str, key: str, special: tuple[str, ...]) -> str:
        if self.text and verb == "put" and self.text in key:
            self.text = ""
            epoch = Epoch(await highest_claim(self.store) + 1)
            claim = Claim(id="another", epoch=epoch, claimed_ms=0, instance="another")
            await self.store.put(claim_key(epoch), encode_record(claim))
        return await super()._begin(verb, key, special)


@pytest.mark.parametrize("text", ["/start.json", "/chunks/", "/snapshots/"])
async def test_another_instance_takes_over(stage: Stage, tmp_path: Path, text: str) -> None:
    """A push that was overtaken does not say that it has stored anything."""
    await history(stage)
    store = Overtaking(stage.store.store)
    store.text = text
    stage.store = store
    with pytest.raises(OwnedByAnother, match="took over while this one was at work"):
        await pushed(stage, make(tmp_path / "new.db", 7))
    assert "epochs/00000002/end.json" not in await stage.objects()


async def test_signs_of_life_are_given(stage: Stage, tmp_path: Path) -> None:
    """While a push stores, whoever asks for the database hears that somebody is there."""
    await pushed(stage, make(tmp_path / "new.db", 7))
    signs = [call.key for call in stage.store.calls if call.verb == "put" and "ack" in call.key]
    assert set(signs) == {"handover/00000002.ack.json"}


# --- what a daemon does with the disk it finds -----------------------------------------------------


@pytest.mark.parametrize("page_size", [4096, 1024, 65536])
@pytest.mark.parametrize("end", [True, False])
async def test_a_disk_with_the_state_before(stage: Stage, tmp_path: Path, page_size: int, *, end: bool) -> None:
    """A start on a disk with the old database restores it forward to the pushed state, whatever its page size.

    TRAP: Seen to fail while the last segment of an earlier epoch counted as a head: the file that stood there was taken
    for one, the daemon went on from it, and the pushed state was no part of the line any more.
    """
    txid = await history(stage, end=end)
    path = make(tmp_path / "new.db", 7, 8, page_size=page_size)
    await pushed(stage, path)
    await stage.start()
    assert rows_of(stage.path) == [7, 8]
    assert not stage.found("local_kept_aside")
    stage.insert(9)
    assert await stage.sync() == txid + 2
    assert await stage.check_newest() == txid + 2


async def test_a_disk_with_what_nobody_else_has(stage: Stage, tmp_path: Path) -> None:
    """What was committed on a disk and never stored is kept aside, when the history has gone on without it."""
    await history(stage, end=False)
    stage.insert(3)
    stage.close()
    await pushed(stage, make(tmp_path / "new.db", 7))
    await stage.boot()
    assert rows_of(stage.path) == [7]
    (kept,) = stage.found("local_kept_aside")
    assert ask(image_of_aside(str(kept["kept_as"])), "SELECT n FROM t ORDER BY n") == [0, 1, 2, 3]


def image_of_aside(path: str) -> bytes:
    """Return what SQLite reads of a file that was kept."""
    connection = apsw.Connection(path)
    try:
        return connection.serialize("main")
    finally:
        connection.close()


async def test_a_disk_with_the_file_that_was_pushed(stage: Stage) -> None:
    """A start on the very file goes on at once: it is the newest state, and nothing is restored or sent."""
    make(stage.path, 7)
    await pushed(stage, stage.path)
    booted = (await stage.boot()).booted
    assert booted.restored is None
    assert booted.opened is not None
    assert booted.opened.opening.continuity is Continuity.SAME


# --- the file --------------------------------------------------------------------------------------


async def test_an_application_writes_on(stage: Stage, tmp_path: Path) -> None:
    """What is pushed is one state, that of the beginning, however much is committed to the file meanwhile."""
    path = make(tmp_path / "new.db", *range(300), size_bytes=10_000)
    expected = image_of(path)
    connection = apsw.Connection(str(path))

    class Writing(Silent):
        def started(self, total_bytes: int) -> None:
            connection.execute("UPDATE t SET v = randomblob(10000)")
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            super().started(total_bytes)

    source = await asyncio.to_thread(Still, path)
    try:
        for _ in range(2):
            await asyncio.to_thread(Writing().started, 0)
        await push(stage.store, source, REQUEST, Silent(), stage.tools.clock)
    finally:
        await asyncio.to_thread(source.close)
        connection.close()
    assert await newest(stage) == (1, expected)


async def test_a_wal_that_is_not_in_the_file_yet(stage: Stage, tmp_path: Path) -> None:
    """What an application has committed and not copied into the file is part of what is pushed."""
    path = make(tmp_path / "new.db", 7)
    connection = apsw.Connection(str(path))
    connection.execute("INSERT INTO t VALUES (8, 1)")
    try:
        await pushed(stage, path, replace(REQUEST, integrity=Integrity.QUICK))
    finally:
        connection.close()
    assert await newest(stage) == (1, image_of(path))
    assert (await stage.states())[1] == [7, 8]


async def test_what_is_written_past_the_locks(stage: Stage, tmp_path: Path) -> None:
    """A file that is changed between hashing and sending is no state: nothing of it counts."""
    path = make(tmp_path / "new.db", *range(300), mode="delete", size_bytes=10_000)

    class Spoiling(Silent):
        times = 0

        def started(self, total_bytes: int) -> None:
            self.times += 1
            if self.times == 2:
                os.truncate(path, total_bytes - 4096)

    with pytest.raises(DatabaseUnusable, match="was written to"):
        await pushed(stage, path, progress=Spoiling())
    assert not [key for key in await stage.objects() if "/snapshots/" in key]


async def test_damage_is_asked_for(stage: Stage, tmp_path: Path) -> None:
    """With --integrity SQLite looks first, and a damaged file is not pushed."""
    path = make(tmp_path / "new.db", *range(50), size_bytes=1000)
    with path.open("r+b") as file:
        file.seek(2 * 4096)
        file.write(bytes(4096))
    with pytest.raises(DatabaseUnusable, match="integrity_check"):
        await pushed(stage, path, replace(REQUEST, integrity=Integrity.FULL))
    assert await stage.objects() == {}


async def test_time_does_not_go_backwards(stage: Stage, tmp_path: Path) -> None:
    """A state that is said to be older than the newest one counts as committed with that one, not before."""
    txid = await history(stage)
    found = await pushed(stage, make(tmp_path / "new.db", 7), replace(REQUEST, committed_ms=1000))
    last, before = (await manifests(stage))[-1], StoredHistory(await stage.objects())
    assert last.txid == txid + 1
    assert last.commit_ms == found.committed_ms > 1000
    assert before.newest()[0] == txid + 1


async def test_the_time_of_a_first_state(stage: Stage, tmp_path: Path) -> None:
    """Where there is no history yet, the state is of the time that is given."""
    await pushed(stage, make(tmp_path / "new.db", 7), replace(REQUEST, committed_ms=1000))
    assert [found.commit_ms for found in await manifests(stage)] == [1000]


@pytest.mark.parametrize(("before", "after"), [(1024, 512), (512, 65536), (65536, 512), (4096, 8192)])
async def test_another_page_size(stage: Stage, tmp_path: Path, before: int, after: int) -> None:
    """TRAP: Chunks have the size that fits the new pages, not as many pages as the ones before had.

    Seen to fail with that number kept: from 1024 to 512 a chunk was half an extent, from 4096 to 8192 it was two.
    """
    await pushed(stage, make(tmp_path / "one.db", 1, page_size=before))
    await pushed(stage, make(tmp_path / "two.db", 2, page_size=after))
    assert [found.chunk_pages * found.page_size for found in await manifests(stage)] == [1 << 20, 1 << 20]
    await stage.start()
    stage.fill(3, 30)
    await stage.sync()
    async with asyncio.timeout(20):
        await stage.follower.snapshot("asked")
    await stage.check_newest()
