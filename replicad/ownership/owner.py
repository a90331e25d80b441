"""Owning an epoch: looking before each report, answering a newcomer, ending the epoch.

The owner may be stopped at any moment for any time, and never knows whether it just was. So nothing here rests on
how long something took: what makes a report true is the look at the next claim behind the upload.

Whoever claims the next epoch lists only afterwards. So what was stored before a look that found no such claim is in
every listing that a later owner begins with.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from replicad.layout import ack_key, claim_key, end_key, handover_key, start_key
from replicad.ownership.claim import Me, claim
from replicad.ownership.records import EpochEnd, HandoverAnswer, encode_record
from replicad.ownership.requests import (
    AWAY,
    UNSETTLED,
    Exists,
    Freeze,
    Get,
    Happened,
    Log,
    Now,
    NowMs,
    Pause,
    Put,
    ShipRest,
    Steps,
    Thaw,
)
from replicad.position import Epoch

if TYPE_CHECKING:
    from replicad.ownership.records import EpochStart
    from replicad.ownership.timing import Timing
    from replicad.position import Position


@dataclass(frozen=True, slots=True, kw_only=True)
class Retired:
    """The epoch ended in order, and another instance claimed the next one. Writers are kept out."""

    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Fenced:
    """Another instance claimed the next epoch before this one ended, or before it could go on behind its end."""

    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Reclaimed:
    """The newcomer is gone and a new epoch is ours; it was never written to. Writers may be kept out still.

    With `restore` False the local file continues the line: start.json names what is stored of the epoch that was
    watched (after `watch`: the end), then the writers go on. With True another instance has written to the line: as
    after `take_over`, everything is listed and restored anew, and the application started again.
    """

    epoch: Epoch
    claim_id: str
    restore: bool


Handover = Retired | Fenced | Reclaimed


def report(epoch: Epoch) -> Steps[bool]:
    """Return whether what is stored by now may be reported durable; False: fenced.

    To be asked after each upload, and before the next one begins: a listing that is read meanwhile then never
    holds a segment without the one before it. It rests on claims never being deleted.
    """
    fenced: bool = yield Exists(key=claim_key(Epoch(epoch + 1)))
    return not fenced


def begin(start: EpochStart) -> Steps[bool]:
    """Store where a newly owned epoch continues from; return whether it is still owned.

    Whoever stood still between claim and listing may find a line that has gone on without it, through a later epoch. A
    start that named that one as its parent would make every reader refuse the whole history.

    Raises:
        StoreUnreachable, StoreRefused: the start may be there, or appear later. Either call again with the same one,
            or take over again; never put another start into this epoch.
    """
    epoch = Epoch(start.epoch)
    if start.parent_epoch >= epoch:
        return False
    yield Put(key=start_key(epoch), body=encode_record(start))
    return (yield from report(epoch))


def show_life(epoch: Epoch, me: Me, timing: Timing) -> Steps[None]:
    """Say again and again that the epoch's owner is alive, while it restores and cannot `watch` yet.

    Runs until the driver closes it. Without it a second newcomer would take a long restore for death, claim, restore
    as long, and be claimed over in its turn.
    """
    for sign in count():
        with suppress(*AWAY):
            yield from _answer(epoch, me, sign)
        yield Pause(seconds=timing.poll_seconds)


def watch(epoch: Epoch, me: Me, timing: Timing) -> Steps[Handover]:
    """Look for a newcomer's request, and hand over; return how it ended.

    While nobody asks this costs one GET per `poll_seconds`.
    """
    while True:
        yield Pause(seconds=timing.poll_seconds)
        try:
            request: bytes | None = yield Get(key=handover_key(Epoch(epoch + 1)))
            if request is None:  # what stands in it does not matter: it may be of a later version
                continue
            outcome = yield from _hand_over(epoch, me, timing)
        except AWAY:
            continue
        if outcome is not None:
            return outcome


def _hand_over(epoch: Epoch, me: Me, timing: Timing) -> Steps[Handover | None]:
    """Ship with the writers running, then the small rest without them, and end; None: go on watching."""
    yield Log(happened=Happened.REQUEST_HEARD, epoch=epoch)
    yield from _ship_rest(epoch, me, timing)  # as far as it gets: a busy application may outrun it for ever
    if not (yield from report(epoch)):
        return Fenced(epoch=epoch)
    yield Freeze()
    try:
        position = yield from _ship_rest(epoch, me, timing)
        if not (yield from report(epoch)):
            return Fenced(epoch=epoch)
    except AWAY:
        yield Thaw(ship=True)
        raise
    if position is None:
        yield Log(happened=Happened.PUT_OFF, epoch=epoch)
        yield Thaw(ship=True)
        return None
    return (yield from _close(position, me, timing))


def _ship_rest(epoch: Epoch, me: Me, timing: Timing) -> Steps[Position | None]:
    """Ship, with signs of life; return None when fenced, or not done within `handover_timeout_seconds`."""
    began_at: float = yield Now()
    for sign in count():
        yield from _answer(epoch, me, sign)
        position: Position | None = yield ShipRest(seconds=timing.poll_seconds)
        if position is not None:
            return position
        if not (yield from report(epoch)):
            return None
        now: float = yield Now()
        if now - began_at >= timing.handover_timeout_seconds:
            return None
    raise AssertionError  # count() does not end


def _answer(epoch: Epoch, me: Me, sign: int) -> Steps[None]:
    now_ms: int = yield NowMs()
    following = Epoch(epoch + 1)
    answer = HandoverAnswer(epoch=following, sign=sign, answered_ms=now_ms, instance=me.instance)
    yield Put(key=ack_key(following), body=encode_record(answer))


def _close(position: Position, me: Me, timing: Timing) -> Steps[Handover]:
    """Store the epoch's end and wait for the successor; without one, claim the next epoch.

    Once the end was tried it may be there, or appear later: this epoch is never written to again. While the
    store is away the writers are let in again after a while, but what they write waits for an epoch to be owned.
    """
    now_ms: int = yield NowMs()
    end = encode_record(end_at(position, now_ms))
    following = Epoch(position.epoch + 1)
    began_at: float = yield Now()
    stored, frozen = False, True
    while True:
        now: float = yield Now()
        is_late = now - began_at >= timing.handover_timeout_seconds
        try:
            if not stored:
                yield Put(key=end_key(position.epoch), body=end)
                stored = True
            if is_late or (yield Exists(key=claim_key(following))):
                if (yield from claim(following, me)):
                    return Reclaimed(epoch=following, claim_id=me.id, restore=False)
                return Retired(epoch=position.epoch) if frozen else Fenced(epoch=position.epoch)
        except UNSETTLED:
            if is_late and frozen:
                yield Thaw(ship=False)
                frozen = False
        yield Pause(seconds=timing.newcomer_poll_seconds)


def end_at(position: Position, now_ms: int) -> EpochEnd:
    """Return the end of the position's epoch, there."""
    return EpochEnd(
        epoch=position.epoch,
        txid=position.txid,
        checksum=f"{position.checksum:016x}",
        pages=position.pages,
        ended_ms=now_ms,
    )
