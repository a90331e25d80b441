"""A process of the model: a clock of its own, threads, an application that commits, a shipper.

Its threads take turns whenever one waits. The application commits whenever it runs and is not frozen; its state is the
list of its transactions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from replicad.layout import SegmentKey
from replicad.ownership import owner
from replicad.ownership.claim import Me
from replicad.ownership.requests import AWAY, Create, Freeze, Pause, Put, ShipRest, Steps, Thaw, Warm
from replicad.position import TXID, Epoch
from tests.simulate.history import encode_segment, position_of
from tests.simulate.world import T0_MS, Thread

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from replicad.ownership.newcomer import Recorded
    from replicad.ownership.timing import Timing
    from tests.simulate.world import World

    Acts = Generator[Any, Any, None]  # of the model daemon: it asks for more than the protocols do


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitWork:
    """The shipper waits for a commit."""


@dataclass(slots=True, kw_only=True)
class Disk:
    """What outlives a process."""

    transactions: list[int] = field(default_factory=list)
    recorded: Recorded | None = None

    def copy(self) -> Disk:
        """Return the same, on another disk."""
        return Disk(transactions=list(self.transactions), recorded=self.recorded)


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How an application and its platform behave in one schedule, and how the driver is sabotaged."""

    timing: Timing
    commit_seconds: float = 2.0
    restore_seconds: float = 1.0
    exits_when_fenced: bool = False
    lists_before_claiming: bool = False  # sabotage


class Process(ABC):
    """One life of the daemon and its application."""

    def __init__(self, world: World, name: str, disk: Disk, habits: Habits, ended: Callable[[], None]) -> None:
        self.world, self.name, self.disk, self.habits, self._ended = world, name, disk, habits, ended
        self.me = Me(id=name, instance=name)
        self.alive = True
        self.is_done = False  # retired for good
        self.stopped_until = self.away_until = 0.0
        self.pace, self._offset = 1 + (world.random.random() - 0.5) / 10, world.random.random() * 1000
        self.steps_left: int | None = None  # then it crashes
        self.runs = self.frozen = False  # the application
        self.ships = False
        self.epoch = Epoch(0)
        self.stored = 0  # transactions, in the own epoch or before it
        self._life: Thread | None = None
        self.shipper: Thread | None = None
        self.idle_shipper = False
        self._waiting: dict[Thread, int] = {}  # for so many transactions to be stored
        self.early_listing: list[str] | None = None
        self._listed_for = ""

    # --- the machine ---------------------------------------------------------------------------

    def clock(self, now: float) -> float:
        """Return this machine's monotonic time."""
        return now * self.pace + self._offset

    def count_step(self, request: object) -> None:
        """Count a request to the store; a process may be made to crash or to stand still at any one of them."""
        if self.habits.lists_before_claiming and isinstance(request, Create) and request.key != self._listed_for:
            self._listed_for, self.early_listing = request.key, sorted(self.world.objects)
        if self.steps_left is not None:
            self.steps_left -= 1
            if self.steps_left == 0:
                if self.world.random.random() < 0.5:  # while the request is under way, or just behind it
                    self.world.after(self.world.random.random() * 0.5, self.crash)
                else:
                    self.stand_still(self.world.random.random() * 20)

    def crash(self) -> None:
        """End without a word; requests on their way go on."""
        if self.alive:
            self.world.say(self.name, "CRASHED")
            self.alive = self.runs = False
            self._ended()

    def stand_still(self, seconds: float) -> None:
        """Do nothing for so long, and know nothing of it; the application goes on."""
        self.world.say(self.name, f"stands still for {seconds:.1f} s")
        self.stopped_until = self.world.now + seconds

    def live(self, steps: Acts) -> None:
        """Go on with another thread of life."""
        if self._life is not None:
            self._life.kill()
        self._life = self.world.start(Thread(self, steps))

    def serve(self, thread: Thread, request: object) -> None:
        """Answer a request that is not the store's."""
        world = self.world
        if isinstance(request, AwaitWork):
            self.idle_shipper = True
        elif isinstance(request, Freeze):
            world.after(world.random.random(), self._freeze, thread)
        elif isinstance(request, Thaw):
            world.say(self.name, f"thawed, ship={request.ship}")
            self.frozen, self.ships = False, request.ship
            world.after(0, world.resume, thread)
        elif isinstance(request, ShipRest):
            self._waiting[thread] = len(self.disk.transactions)
            world.after(request.seconds / self.pace, self._give_up_waiting, thread)
            world.after(0, self._tell_waiting)
        elif isinstance(request, Warm):
            world.after(world.random.random() * self.habits.restore_seconds, world.resume, thread)
        else:
            raise TypeError(request)

    def _freeze(self, thread: Thread) -> None:
        self.world.say(self.name, "frozen")
        self.frozen = True
        self.world.resume(thread)

    # --- the application -----------------------------------------------------------------------

    def commit(self) -> None:
        """Commit one transaction if the application can, and come again."""
        if not self.alive:
            return
        if self.runs and not self.frozen:
            transaction = self.world.accept()
            self.disk.transactions.append(transaction)
            self.world.say(self.name, f"committed {transaction} as TXID {len(self.disk.transactions)}")
            self._wake_shipper()
        self.world.after(self.world.random.random() * 2 * self.habits.commit_seconds, self.commit)

    # --- shipping ------------------------------------------------------------------------------

    def _wake_shipper(self) -> None:
        if self.idle_shipper and self.shipper is not None:
            self.idle_shipper = False
            self.world.resume(self.shipper)

    def _tell_waiting(self) -> None:
        for thread, wanted in list(self._waiting.items()):
            if self.ships and self.stored >= wanted:
                del self._waiting[thread]
                self.world.resume(thread, position_of(self.epoch, self.disk.transactions[:wanted]))

    def _give_up_waiting(self, thread: Thread) -> None:
        if thread in self._waiting:
            del self._waiting[thread]
            self.world.resume(thread, None)

    @abstractmethod
    def when_fenced(self, epoch: Epoch) -> None:
        """Leave whatever life was about: somebody else owns."""

    def ship(self, epoch: Epoch) -> Acts:
        """Upload, look, report: one segment after the other."""
        transactions = self.disk.transactions
        while True:
            if self.stored == len(transactions) or not self.ships:
                yield AwaitWork()
                continue
            first, last = self.stored + 1, len(transactions)
            ms = T0_MS + int(self.world.now * 1000)
            key = SegmentKey(epoch=epoch, first=TXID(first), last=TXID(last), last_ms=ms)
            yield from self._store(Put(key=str(key), body=encode_segment(transactions[first - 1 : last])))
            self.stored = last
            if not (yield from self.may_report(epoch)):
                self.when_fenced(epoch)
                return
            for txid in range(first, last + 1):
                self.world.report(txid, transactions[txid - 1])
            self._tell_waiting()

    def _store(self, segment: Put) -> Steps[None]:
        while True:
            try:
                yield segment
            except AWAY:
                yield Pause(seconds=0.5)
            else:
                return

    def may_report(self, epoch: Epoch) -> Steps[bool]:
        """Ask until there is an answer."""
        while True:
            try:
                return (yield from owner.report(epoch))
            except AWAY:
                yield Pause(seconds=0.5)
