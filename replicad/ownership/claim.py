"""Claiming an epoch: of all who create the one key, the store lets one succeed.

A create ends in yes, no, or silence, and even a "no" may be the refusal of one's own success, repeated somewhere on its
way. So whatever is not a plain yes is settled by reading the key back: the id in the body says who wrote it. The id
stays the same over all attempts, because an attempt that was given up may still arrive.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.errors import CreateUndecided, Damaged, NewerFormat
from replicad.layout import claim_key
from replicad.ownership.records import Claim, decode_claim, encode_record
from replicad.ownership.requests import Create, Created, Get, Happened, Log, NowMs, Pause, Steps

if TYPE_CHECKING:
    from replicad.position import Epoch

ATTEMPTS = 8
_FIRST_PAUSE_SECONDS = 0.1
_MAX_PAUSE_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Me:
    """Who claims. One per process and database."""

    id: str  # random, and no other process's: claims are told apart by it
    instance: str  # for people


def claim(epoch: Epoch, me: Me) -> Steps[bool]:
    """Try to become the owner of an epoch; return whether it is ours.

    Raises:
        CreateUndecided: still open after all attempts. The claim may yet appear; calling again settles it.
        StoreUnreachable, StoreRefused: likewise.
    """
    key = claim_key(epoch)
    now_ms: int = yield NowMs()
    body = encode_record(Claim(id=me.id, epoch=epoch, claimed_ms=now_ms, instance=me.instance))
    for attempt in range(ATTEMPTS):
        answer: Created = yield Create(key=key, body=body)
        found: bytes | None = body if answer is Created.MADE else (yield Get(key=key))
        if found is not None:
            return (yield from _settle(epoch, me, answer, found))
        yield Pause(seconds=_pause_seconds(me, attempt))
    raise CreateUndecided(store="of the claims", key=key, found=f"no plain answer in {ATTEMPTS} attempts")


def _settle(epoch: Epoch, me: Me, answer: Created, found: bytes) -> Steps[bool]:
    mine = claimant(found) == me.id
    if answer is Created.UNDECIDED or (mine and answer is Created.TAKEN):
        yield Log(happened=Happened.LOST_ANSWER_SETTLED, epoch=epoch)
    yield Log(happened=Happened.CLAIM_MADE if mine else Happened.CLAIM_LOST, epoch=epoch)
    return mine


def claimant(body: bytes) -> str | None:
    """Return the id in a claim; None for one that cannot be read, which is then nobody's we know."""
    try:
        return decode_claim(body, what="a claim").id
    except (Damaged, NewerFormat):
        return None


def is_claimed_by(epoch: Epoch, claim_id: str) -> Steps[bool]:
    """Return whether the epoch's claim carries this id."""
    found: bytes | None = yield Get(key=claim_key(epoch))
    return found is not None and claimant(found) == claim_id


def _pause_seconds(me: Me, attempt: int) -> float:
    """Return a growing pause that differs between claimants, so that two do not meet again and again."""
    longest = min(_FIRST_PAUSE_SECONDS * (1 << attempt), _MAX_PAUSE_SECONDS)
    spread = zlib.crc32(f"{me.id}/{attempt}".encode()) / 2**32
    return longest * (0.5 + spread / 2)
