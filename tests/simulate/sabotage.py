"""The protocol with one guard taken out, to show that the simulation would notice."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from replicad.layout import claim_key, end_key
from replicad.ownership import newcomer, owner, standby
from replicad.ownership.claim import ATTEMPTS, Me, claim, is_claimed_by
from replicad.ownership.newcomer import Ownership, Recorded
from replicad.ownership.records import Claim, EpochStart, encode_record
from replicad.ownership.requests import Claims, Create, Created, Exists, Happened, Log, Pause, Put, Steps
from tests.simulate.schedule import FAITHFUL, Sabotage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from replicad.ownership.timing import Timing
    from replicad.position import Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """One guard less."""

    why: str  # it matters
    driver: Sabotage = FAITHFUL
    replaced: tuple[tuple[object, str, Callable[..., Any]], ...] = ()

    @contextmanager
    def in_place(self) -> Iterator[Sabotage]:
        """Run the protocol without the guard."""
        whole = [(module, name, getattr(module, name)) for module, name, _ in self.replaced]
        for module, name, made in self.replaced:
            setattr(module, name, made)
        try:
            yield self.driver
        finally:
            for module, name, original in whole:
                setattr(module, name, original)


def _everywhere(made: Callable[..., Any]) -> tuple[tuple[object, str, Callable[..., Any]], ...]:
    return tuple((module, "claim", made) for module in (newcomer, owner, standby))


def _may_always_report(_: Epoch) -> Steps[bool]:
    yield from ()
    return True


def _claim_without_reading(*, taken_is_mine: bool) -> Callable[[Epoch, Me], Steps[bool]]:
    """Return a claim that believes the refusal, and reads back only where there was no answer at all."""

    def broken(epoch: Epoch, me: Me) -> Steps[bool]:
        body = encode_record(Claim(id=me.id, epoch=epoch, claimed_ms=0, instance=me.instance))
        for _ in range(ATTEMPTS):
            answer: Created = yield Create(key=claim_key(epoch), body=body)
            if answer is not Created.UNDECIDED:
                mine = answer is Created.MADE or taken_is_mine
                yield Log(happened=Happened.CLAIM_MADE if mine else Happened.CLAIM_LOST, epoch=epoch)
                return mine
            yield Pause(seconds=0.2)
        return False

    return broken


def _claim_with_fresh_ids(epoch: Epoch, me: Me) -> Steps[bool]:
    """Claim with another id at each attempt."""
    for attempt in count():
        try:
            return (yield from _first_attempt(claim(epoch, Me(id=f"{me.id}/{attempt}", instance=me.instance))))
        except _NotDecided:
            yield Pause(seconds=0.2)
    raise AssertionError


class _NotDecided(Exception):
    pass


def _first_attempt(steps: Steps[bool]) -> Steps[bool]:
    """Run a claim up to the pause in front of its second attempt."""
    answer: object = None
    while True:
        try:
            request = steps.send(answer)
        except StopIteration as stop:
            return bool(stop.value)
        if isinstance(request, Pause):
            raise _NotDecided
        answer = yield request


def _begin_without_comparing(start: EpochStart) -> Steps[bool]:
    """Name a later epoch as the parent, if that is what was found."""
    yield Put(key=f"epochs/{start.epoch:08x}/start.json", body=encode_record(start))
    return (yield from owner.report(start.epoch))  # type: ignore[arg-type]


_take_over = newcomer.take_over


def _go_on_in_the_same_epoch(me: Me, timing: Timing, recorded: Recorded | None = None) -> Steps[Ownership]:
    """Use the epoch that the state file names, without a claim of this life."""
    highest: Epoch = yield Claims()
    if recorded is not None and recorded.epoch == highest:
        ended: bool = yield Exists(key=end_key(highest))
        if not ended and (yield from is_claimed_by(highest, recorded.claim_id)):
            return Ownership(epoch=highest, claim_id=recorded.claim_id, continued=True)
    return (yield from _take_over(me, timing, recorded))


BROKEN = {
    "list before claim": Broken(
        why="what the old owner reports between the two is not on the new line",
        driver=Sabotage(lists_before_claiming=True),
    ),
    "no look before reporting": Broken(
        why="a stalled owner reports what its successor never saw",
        replaced=((owner, "report", _may_always_report),),
    ),
    "taken believed to be lost": Broken(
        why="behind an HTTP layer that resends, one's own success is refused",
        driver=Sabotage(repeats_creates=True),
        replaced=_everywhere(_claim_without_reading(taken_is_mine=False)),
    ),
    "taken believed to be mine": Broken(
        why="two own one epoch",
        replaced=_everywhere(_claim_without_reading(taken_is_mine=True)),
    ),
    "a fresh id for each attempt": Broken(
        why="an attempt that was given up arrives, and looks like another's",
        replaced=_everywhere(_claim_with_fresh_ids),
    ),
    "a start that names a later parent": Broken(
        why="nobody can read the history any more",
        replaced=((owner, "begin", _begin_without_comparing),),
    ),
    "going on in the same epoch": Broken(
        why="a copied disk, or a late request of the former life, writes into the same folder",
        replaced=((newcomer, "take_over", _go_on_in_the_same_epoch),),
    ),
}
