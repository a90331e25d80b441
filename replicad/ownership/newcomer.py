"""Becoming the owner: at once where nobody is left to be asked, with the owner's leave where there is one.

A platform that deploys by rolling stops the old instance only after the new one is healthy. A newcomer that waited for
the old one to go away would wait for ever; one that just claimed would lose what the old one commits meanwhile.
So it asks, and claims without leave only when the owner gives no sign of life.

An epoch is used only by the call that claimed it. A claim of our own that turns up later, from an attempt that was
given up or from before a restart, only shows that nobody need be asked: the next epoch is claimed. So no
folder is ever written by two processes, not even by two lives of one, whose late requests could still arrive, nor by
two copies of one disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from replicad.layout import ack_key, claim_key, end_key, handover_key
from replicad.ownership.claim import Me, claim, is_claimed_by
from replicad.ownership.records import HandoverRequest, encode_record
from replicad.ownership.requests import Claims, Exists, Get, Happened, Log, Now, NowMs, Pause, Put, Steps, Warm
from replicad.position import Epoch

if TYPE_CHECKING:
    from replicad.ownership.timing import Timing


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """The claim that the state file beside the database names; its process is known to be gone (a lock is held)."""

    epoch: Epoch
    claim_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """An epoch that is ours, and was never written to.

    It may have been lost again before it was listed: a listing with a later epoch on its line makes `continued` void.
    """

    epoch: Epoch
    claim_id: str
    continued: bool  # up to this claim nobody else owned the database since the state file was written


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The owner lives, and has not ended its epoch in time."""

    asked: Epoch  # what the request is for, which stands still


class _Answer(Enum):
    """How asking for an epoch ended."""

    ENDED = auto()  # the owner ended its epoch
    SILENT = auto()  # the owner gives no sign of life
    UNWILLING = auto()  # it does, or might yet, but does not end
    OVERTAKEN = auto()  # somebody else claimed the epoch asked for


def take_over(me: Me, timing: Timing, recorded: Recorded | None = None) -> Steps[Ownership]:
    """Own the next epoch; return it.

    Afterwards the driver gives signs of life (`show_life`), LISTs, puts start.json, looks whether it still owns
    (`report`), and only then starts the application. It never puts a second, other start.json into one epoch: after a
    failure it takes over again.

    Raises:
        StoreUnreachable, StoreRefused, CreateUndecided: nothing is ours yet; call again.
    """
    owned = yield from _own(me, timing, recorded, insist=True)
    if isinstance(owned, Refused):
        raise TypeError(owned)
    return owned


def take_if_given(me: Me, timing: Timing) -> Steps[Ownership | Refused]:
    """Own the next epoch as `take_over` does, but never against an owner that lives.

    For whoever can come again: a command, not the application's own next instance. `patience_seconds` count from the
    request, whether or not there was an answer.

    Raises:
        StoreUnreachable, StoreRefused, CreateUndecided: nothing is ours yet; call again.
    """
    return (yield from _own(me, timing, None, insist=False))


def _own(me: Me, timing: Timing, recorded: Recorded | None, *, insist: bool) -> Steps[Ownership | Refused]:
    while True:
        highest: Epoch = yield Claims()
        claimed = Epoch(highest + 1)
        continued = yield from _continues(highest, me, recorded)
        if not (continued or (yield from _is_free(highest, me))):
            answer = yield from _ask(claimed, me, timing, insist=insist)
            if answer is _Answer.OVERTAKEN:
                continue
            if answer is _Answer.UNWILLING and not insist:
                return Refused(asked=claimed)
            if answer is not _Answer.ENDED:
                yield Log(happened=Happened.OWNER_SILENT, epoch=claimed)
        if (yield from claim(claimed, me)):
            return Ownership(epoch=claimed, claim_id=me.id, continued=continued)


def _is_free(highest: Epoch, me: Me) -> Steps[bool]:
    """Return whether nobody is left who would have to be asked."""
    if highest == 0 or (yield Exists(key=end_key(highest))):
        return True
    return (yield from is_claimed_by(highest, me.id))  # by an attempt that was given up, and came through


def _continues(highest: Epoch, me: Me, recorded: Recorded | None) -> Steps[bool]:
    """Return whether all claims from the recorded one on are ours."""
    if recorded is None or recorded.epoch > highest:
        return False
    for later in range(highest, recorded.epoch, -1):
        if not (yield from is_claimed_by(Epoch(later), me.id)):
            return False
    return (yield from is_claimed_by(recorded.epoch, recorded.claim_id))


def _ask(asked: Epoch, me: Me, timing: Timing, *, insist: bool) -> Steps[_Answer]:
    """Ask the owner of the epoch before `asked` to end it, and wait."""
    yield Warm(epoch=Epoch(asked - 1))  # before asking: what fails here costs the owner nothing
    # What the owner said while it started, or to somebody before, is no sign that it is alive now.
    stale: bytes | None = yield Get(key=ack_key(asked))
    now_ms: int = yield NowMs()
    request = HandoverRequest(id=me.id, epoch=asked, requested_ms=now_ms, instance=me.instance)
    # Not created: an undecided create may have left no request, and an owner that was never asked seems silent.
    yield Put(key=handover_key(asked), body=encode_record(request))
    yield Log(happened=Happened.ASKED, epoch=asked)
    return (yield from _wait(asked, timing, stale, insist=insist))


def _wait(asked: Epoch, timing: Timing, stale: bytes | None, *, insist: bool) -> Steps[_Answer]:
    heard_at: float = yield Now()
    answered_at: float | None = None
    patient_since = None if insist else heard_at
    last_sign = stale
    while True:
        yield Pause(seconds=timing.newcomer_poll_seconds)
        now: float = yield Now()  # before looking: after a long stop what has happened meanwhile is seen first
        if (yield Exists(key=claim_key(asked))):
            return _Answer.OVERTAKEN
        if (yield Exists(key=end_key(Epoch(asked - 1)))):
            return _Answer.ENDED
        sign: bytes | None = yield Get(key=ack_key(asked))
        if sign != last_sign:
            last_sign, heard_at = sign, now
            answered_at = now if answered_at is None else answered_at
        limit_seconds = timing.silence_seconds if answered_at is None else timing.handover_timeout_seconds
        if now - heard_at >= limit_seconds:
            return _Answer.SILENT
        waited_since = answered_at if patient_since is None else patient_since
        if waited_since is not None and now - waited_since >= timing.patience_seconds:
            return _Answer.UNWILLING
