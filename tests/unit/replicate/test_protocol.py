"""The driver: each request of a protocol, carried out on a store."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import structlog

from replicad.encryption.keys import EncryptionKey
from replicad.errors import ObjectExists, StoreUnreachable
from replicad.layout import claim_key, end_key, handover_key
from replicad.observe.metrics import DatabaseMetrics
from replicad.ownership import requests
from replicad.ownership.claim import Me, claim
from replicad.ownership.newcomer import take_over
from replicad.ownership.records import Claim, decode_claim, encode_record
from replicad.ownership.requests import Created, Happened
from replicad.ownership.timing import Timing
from replicad.position import Epoch, Position
from replicad.replicate.protocol import Driver
from replicad.store.encrypted import EncryptedStore
from replicad.store.memory import MemoryStore
from tests.support.clock import ManualClock
from tests.support.faulty_store import Faults, FaultyStore

if TYPE_CHECKING:
    from collections.abc import Generator

    from replicad.ownership.requests import Request
    from replicad.replicate.fencing import Fencing
    from replicad.store.protocol import ObjectStore

ME, OTHER = Me(id="mine", instance="here"), Me(id="another's", instance="there")
FIRST = claim_key(Epoch(1))
POSITION = Position(epoch=Epoch(1), txid=7, checksum=1, pages=2)  # type: ignore[arg-type]


class Recorder:
    """A host that writes down what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def warm(self, epoch: Epoch) -> None:
        """Take note."""
        self.asked.append(f"warm {epoch}")

    async def freeze(self) -> None:
        """Take note."""
        self.asked.append("freeze")

    async def ship_rest(self, seconds: float) -> Position | None:
        """Take note; the rest is stored."""
        self.asked.append(f"ship_rest {seconds:g}")
        return POSITION

    async def thaw(self, *, ship: bool) -> None:
        """Take note."""
        self.asked.append(f"thaw {ship}")


def driver(store: ObjectStore, fencing: Fencing = "auto", host: Recorder | None = None) -> Driver:
    """Return a driver with metrics and log of its own."""
    return Driver(
        store, ManualClock(), structlog.get_logger(), DatabaseMetrics(), host=host or Recorder(), fencing=fencing
    )


def body(me: Me) -> bytes:
    """Return a claim of the first epoch."""
    return encode_record(Claim(id=me.id, epoch=1, claimed_ms=0, instance=me.instance))


async def test_what_is_asked_of_the_store() -> None:
    """Get, Exists, Put, Create and Claims do to the store what their names say, and nothing else."""
    store = MemoryStore()
    driven = driver(store)
    key = claim_key(Epoch(3))
    assert await driven.ask(requests.Get(key=key)) is None
    assert await driven.ask(requests.Exists(key=key)) is False
    assert await driven.ask(requests.Claims()) == 0
    assert await driven.ask(requests.Create(key=key, body=b"first")) is Created.MADE
    assert await driven.ask(requests.Create(key=key, body=b"second")) is Created.TAKEN
    assert await driven.ask(requests.Get(key=key)) == b"first"
    assert await driven.ask(requests.Exists(key=key)) is True
    await driven.ask(requests.Put(key=handover_key(Epoch(9)), body=b"note"))
    assert await driven.ask(requests.Claims()) == 3
    assert [row.key async for row in store.list("")] == [key, handover_key(Epoch(9))]


async def test_what_cannot_be_decrypted_is_there() -> None:
    """An object under a key that this instance does not have is there, and not its own: claim, request or damage."""
    old, new = (EncryptionKey(bytes([number]) * 32) for number in (1, 2))
    memory = MemoryStore()
    owner, newcomer = EncryptedStore(memory, [old]), EncryptedStore(memory, [new, old])
    driven = driver(owner)
    assert await driven.ask(requests.Create(key=FIRST, body=body(ME))) is Created.MADE
    second = claim_key(Epoch(2))
    for key in (handover_key(Epoch(2)), second):
        await newcomer.put(key, body(OTHER))
        assert await driven.ask(requests.Exists(key=key)) is True
        assert await driven.ask(requests.Get(key=key)) == b""
    assert await driven.ask(requests.Create(key=second, body=body(ME))) is Created.TAKEN
    assert await driven.run(claim(Epoch(2), ME)) is False
    await memory.put(FIRST, b"damaged")
    assert await driven.ask(requests.Get(key=FIRST)) == b""


async def test_what_is_asked_of_the_machine() -> None:
    """Time comes from the clock, and a pause lets others run."""
    driven, clock = driver(MemoryStore()), ManualClock()
    assert await driven.ask(requests.Now()) == clock.monotonic()
    assert await driven.ask(requests.NowMs()) == clock.now_ms()
    ran = asyncio.create_task(asyncio.sleep(0))
    await driven.ask(requests.Pause(seconds=0.001))
    assert ran.done()


async def test_what_is_asked_of_the_application() -> None:
    """Warm, Freeze, ShipRest and Thaw are passed on, and the position that was reached comes back."""
    host = Recorder()
    driven = driver(MemoryStore(), host=host)
    await driven.ask(requests.Warm(epoch=Epoch(4)))
    await driven.ask(requests.Freeze())
    assert await driven.ask(requests.ShipRest(seconds=5.0)) == POSITION
    await driven.ask(requests.Thaw(ship=False))
    assert host.asked == ["warm 4", "freeze", "ship_rest 5", "thaw False"]


@pytest.mark.parametrize("happened", list(Happened))
async def test_whatever_happens_is_logged(happened: Happened) -> None:
    """Each thing that a protocol wants said is one log line; a settled answer is counted too."""
    metrics = DatabaseMetrics()
    driven = Driver(MemoryStore(), ManualClock(), structlog.get_logger(), metrics, host=Recorder(), fencing="auto")
    with structlog.testing.capture_logs() as lines:
        await driven.ask(requests.Log(happened=happened, epoch=Epoch(2)))
    assert [line["epoch"] for line in lines] == [2]
    assert metrics.lost_answers == (happened is Happened.LOST_ANSWER_SETTLED)


async def test_an_error_is_thrown_into_the_protocol() -> None:
    """A protocol may catch what a request met and go on; what it does not, ends `run`; it is closed."""
    store, ended = FaultyStore(MemoryStore()), []
    store.reachable = False

    def patient() -> Generator[Request, object, str]:
        try:
            yield requests.Get(key="k")
        except StoreUnreachable:
            now = yield requests.Now()
            return f"went on at {now}"
        return "read"

    def impatient() -> Generator[Request, object, None]:
        try:
            yield requests.Get(key="k")
        finally:
            ended.append(True)

    assert await driver(store).run(patient()) == "went on at 1000.0"
    with pytest.raises(StoreUnreachable):
        await driver(store).run(impatient())
    assert ended == [True]


async def test_a_cancelled_protocol_is_closed() -> None:
    """Cancelling `run` closes the generator: its `finally` runs."""
    ended = []

    def endless() -> Generator[Request, object, None]:
        try:
            while True:
                yield requests.Pause(seconds=3600)
        finally:
            ended.append(True)

    running = asyncio.create_task(driver(MemoryStore()).run(endless()))
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert ended == [True]


async def test_a_create_is_sent_once_and_settled_by_the_protocol() -> None:
    """A lost answer is undecided, not tried again below the protocol; the id in the claim settles it."""
    store = FaultyStore(MemoryStore())
    driven = driver(store)
    await driven.fence.holds()
    store.faults = Faults(lost_answer=1.0)
    before = store.count("create")
    assert await driven.ask(requests.Create(key=FIRST, body=body(ME))) is Created.UNDECIDED
    assert store.count("create") == before + 1
    store.faults = Faults()
    assert await driven.run(claim(Epoch(1), ME))
    assert decode_claim(await store.store.get(FIRST), what="claim").id == ME.id


async def test_a_claim_that_is_another_s() -> None:
    """Who comes second does not get the epoch, and changes nothing."""
    store = MemoryStore()
    assert await driver(store).run(claim(Epoch(1), OTHER))
    assert not await driver(store).run(claim(Epoch(1), ME))
    assert decode_claim(await store.get(FIRST), what="claim").id == OTHER.id
    with pytest.raises(ObjectExists):
        await store.create(FIRST, b"x")


async def test_taking_over_behind_an_end() -> None:
    """A whole protocol on a store: an epoch that was ended is followed by the next one, without asking anybody."""
    store = MemoryStore()
    driven = driver(store)
    await driven.run(claim(Epoch(1), OTHER))
    await store.put(end_key(Epoch(1)), b"ended")
    ownership = await driven.run(take_over(ME, Timing()))
    assert (ownership.epoch, ownership.continued) == (2, False)
    assert not [row async for row in store.list("handover/")]
