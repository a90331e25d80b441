"""A model of the daemon: the protocols of `replicad.ownership`, driven as the daemon drives them.

A machine has a disk and runs one process after the other on it. Its life: own, boot, watch, stand by.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from replicad.layout import end_key
from replicad.ownership import newcomer, owner, standby
from replicad.ownership.newcomer import Recorded
from replicad.ownership.owner import Fenced, Reclaimed, Retired
from replicad.ownership.records import EpochStart, encode_record
from replicad.ownership.requests import AWAY, UNSETTLED, Pause, Put, ShipRest, Steps
from tests.simulate.history import Content, Violation, position_of, read_content
from tests.simulate.process import Process
from tests.simulate.world import ListEpochs, Thread

if TYPE_CHECKING:
    from collections.abc import Generator

    from replicad.position import Epoch
    from tests.simulate.process import Acts


class Begin(Enum):
    """How an owned epoch is begun."""

    RESTORE = auto()
    CONTINUE = auto()  # the local file is the line's newest state


class Instance(Process):
    """One life of the daemon and its application."""

    def stop(self) -> None:
        """End as at SIGTERM: the application is stopped, the rest shipped, the epoch ended."""
        if self.alive:
            self.world.say(self.name, "told to stop")
            self.live(self._finish())

    def _finish(self) -> Acts:
        if self.runs:
            self.runs = False
            position = yield ShipRest(seconds=10.0)
            try:
                if position is not None and (yield from owner.report(self.epoch)):
                    yield Put(key=end_key(self.epoch), body=encode_record(owner.end_at(position, 0)))
            except AWAY:
                pass
        self.crash()

    # --- life ----------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start the process."""
        self.world.say(self.name, f"started with {len(self.disk.transactions)} transactions, {self.disk.recorded}")
        self.live(self._become_owner())
        self.world.after(0, self.commit)

    def _become_owner(self) -> Acts:
        while True:
            try:
                own = yield from newcomer.take_over(self.me, self.habits.timing, self.disk.recorded)
            except UNSETTLED:
                yield Pause(seconds=0.5)
                continue
            self.world.coverage["continued"] += own.continued
            yield from self._own(own.epoch, Begin.RESTORE, continued=own.continued)

    def _own(self, epoch: Epoch, begin: Begin, *, continued: bool = False) -> Acts:
        """Boot, and watch until the epoch is over; return when it has to be taken over again."""
        while True:
            self.world.say(self.name, f"owns {epoch}, {begin.name}")
            self.runs = self.runs and begin is Begin.CONTINUE
            try:
                if begin is Begin.RESTORE:
                    is_ours = yield from self._boot(epoch, continued=continued)
                else:
                    is_ours = yield from self._go_on(epoch)
            except AWAY:
                return
            if is_ours:
                outcome = yield from self._run(epoch)
            elif begin is Begin.RESTORE:
                self.world.coverage["overtaken at boot"] += 1
                return  # what stands here was never written to: it is restored again
            else:
                outcome = Fenced(epoch=self.epoch)
            successor = yield from self._after(epoch, outcome)
            if successor is None:
                return
            epoch, begin = successor.epoch, Begin.RESTORE if successor.restore else Begin.CONTINUE

    def _go_on(self, epoch: Epoch) -> Steps[bool]:
        """Begin an epoch behind one's own; the same start is put until it is stored."""
        known = Content(head=self.epoch, transactions=tuple(self.disk.transactions[: self.stored]))
        while True:
            try:
                return (yield from owner.begin(_start(epoch, known)))
            except AWAY:
                yield Pause(seconds=0.5)

    def _run(self, epoch: Epoch) -> Generator[Any, Any, object]:
        self.epoch, self.disk.recorded = epoch, Recorded(epoch=epoch, claim_id=self.me.id)
        self.runs = self.ships = True
        self.frozen = False
        self.idle_shipper = False
        self.shipper = self.world.start(Thread(self, self.ship(epoch)))
        outcome = yield from owner.watch(epoch, self.me, self.habits.timing)
        self.shipper.kill()
        return outcome

    def _after(self, epoch: Epoch, outcome: object) -> Generator[Any, Any, Reclaimed | None]:
        """Return the epoch to go on in; None: start over as a newcomer would."""
        self.world.say(self.name, outcome)
        self.world.coverage[type(outcome).__name__] += 1
        if isinstance(outcome, Reclaimed):
            return outcome
        self.frozen = True
        if isinstance(outcome, Fenced) and self.habits.exits_when_fenced:
            self.crash()
            yield Pause(seconds=0)
        reclaimed = yield from standby.stand_by(epoch, self.me, self.habits.timing)
        if reclaimed is None:
            self.world.say(self.name, "retired for good")
            self.is_done, self.runs = isinstance(outcome, Retired), False
            if not self.is_done:  # a fenced one's platform starts it anew
                self.crash()
            yield Pause(seconds=1e9)
        self.world.say(self.name, reclaimed)
        self.world.coverage["stood by"] += 1
        if reclaimed is not None and reclaimed.restore:
            self.world.coverage["stood by, restored"] += 1
        return reclaimed

    def when_fenced(self, epoch: Epoch) -> None:
        """Leave whatever life was about: somebody else owns."""
        self._waiting.clear()
        self.live(self._be_fenced(epoch))

    def _be_fenced(self, epoch: Epoch) -> Acts:
        successor = yield from self._after(epoch, Fenced(epoch=epoch))
        if successor is not None:
            yield from self._own(successor.epoch, Begin.RESTORE if successor.restore else Begin.CONTINUE)
        yield from self._become_owner()

    # --- boot ----------------------------------------------------------------------------------

    def _boot(self, epoch: Epoch, *, continued: bool) -> Generator[Any, Any, bool]:
        """Claim came before; now list, restore, and say where this epoch continues from. False: fenced."""
        world = self.world
        signs = world.start(Thread(self, owner.show_life(epoch, self.me, self.habits.timing)))
        try:
            keys, due = yield ListEpochs()
            if self.early_listing is not None:
                keys = self.early_listing
            content = read_content(world.objects, keys)
            world.reported.check_on(content.transactions, due, "I2")
            yield Pause(seconds=world.random.random() * 2 * self.habits.restore_seconds)
            self._bring_together(content, continued=continued and content.head < epoch)
            if content.head == epoch:  # only where an epoch is gone on in, which is sabotage
                return (yield from owner.report(epoch))
            return (yield from owner.begin(_start(epoch, content)))
        finally:
            signs.kill()

    def _bring_together(self, content: Content, *, continued: bool) -> None:
        """Keep the local file if it is ahead on the same line, else restore."""
        stored = list(content.transactions)
        local = self.disk.transactions
        shorter = min(len(stored), len(local))
        if continued and stored[:shorter] != local[:shorter]:
            raise Violation("somebody else wrote since the state file was written, although the claims say otherwise")
        if local[: len(stored)] != stored:
            self.disk.transactions = stored
        self.stored = len(stored)


def _start(epoch: Epoch, parent: Content) -> EpochStart:
    position = position_of(parent.head, parent.transactions)
    return EpochStart(
        database_id="model",
        epoch=epoch,
        parent_epoch=position.epoch,
        parent_txid=position.txid,
        checksum=f"{position.checksum:016x}",
        pages=position.pages,
        started_ms=0,
    )
