from __future__ import annotations

import pytest

from replicad.errors import CreateUndecided, StoreUnreachable
from replicad.layout import claim_key
from replicad.ownership.claim import ATTEMPTS, Me, claim, claimant
from replicad.ownership.records import Claim, encode_record
from replicad.ownership.requests import Create, Created, Get, Happened
from replicad.position import Epoch
from tests.support.dialogue import AWAY, NOW_MS, Dialogue

ME = Me(id="c0ffee", instance="web-1")
EPOCH = Epoch(4)
KEY = claim_key(EPOCH)
MINE = encode_record(Claim(id="c0ffee", epoch=4, claimed_ms=NOW_MS, instance="web-1"))
ANOTHERS = encode_record(Claim(id="decaf", epoch=4, claimed_ms=NOW_MS, instance="web-1"))
ATTEMPT = Create(key=KEY, body=MINE)


def test_a_plain_yes_is_believed() -> None:
    """A create that succeeds makes the epoch ours, without another request."""
    dialogue = Dialogue(claim(EPOCH, ME))
    dialogue.answer(ATTEMPT, Created.MADE)
    assert (dialogue.is_over, dialogue.result) == (True, True)
    assert dialogue.happened == [Happened.CLAIM_MADE]


@pytest.mark.parametrize("answer", [Created.TAKEN, Created.UNDECIDED])
@pytest.mark.parametrize(("found", "mine"), [(MINE, True), (ANOTHERS, False)], ids=["mine", "another's"])
def test_anything_else_is_read_back(answer: Created, found: bytes, *, mine: bool) -> None:
    """Whether it was refused or left open: the id in the stored claim decides."""
    dialogue = Dialogue(claim(EPOCH, ME))
    dialogue.answer(ATTEMPT, answer)
    dialogue.answer(Get(key=KEY), found)
    assert (dialogue.is_over, dialogue.result) == (True, mine)
    assert (Happened.CLAIM_MADE in dialogue.happened, Happened.CLAIM_LOST in dialogue.happened) == (mine, not mine)
    settled = mine or answer is Created.UNDECIDED  # else it was a plain no
    assert (Happened.LOST_ANSWER_SETTLED in dialogue.happened) == settled


def test_the_id_stays_the_same() -> None:
    """After an attempt that left nothing the same bytes are tried again: the first attempt may yet arrive."""
    dialogue = Dialogue(claim(EPOCH, ME))
    pauses = []
    for _ in range(ATTEMPTS - 1):
        dialogue.answer(ATTEMPT, Created.UNDECIDED)
        dialogue.answer(Get(key=KEY), None)
        pauses.append(dialogue.pause())
    dialogue.answer(ATTEMPT, Created.TAKEN)
    dialogue.answer(Get(key=KEY), MINE)
    assert dialogue.result is True
    assert all(0 < seconds <= 2 for seconds in pauses)
    assert pauses[-1] > 4 * pauses[0], "they grow"


def test_a_claim_that_stays_open_is_an_error() -> None:
    """After the last attempt nothing is assumed; the caller calls again."""
    dialogue = Dialogue(claim(EPOCH, ME))
    for attempt in range(ATTEMPTS):
        dialogue.answer(ATTEMPT, Created.UNDECIDED)
        dialogue.answer(Get(key=KEY), None)
        if attempt < ATTEMPTS - 1:
            dialogue.pause()
    with pytest.raises(CreateUndecided, match=KEY):
        dialogue.pause()


def test_an_unreachable_store_is_the_callers() -> None:
    """A store that cannot be read back leaves the claim open."""
    dialogue = Dialogue(claim(EPOCH, ME))
    dialogue.answer(ATTEMPT, Created.UNDECIDED)
    with pytest.raises(StoreUnreachable):
        dialogue.answer(Get(key=KEY), AWAY)


def test_two_claimants_pause_differently() -> None:
    """Their retries do not meet again and again."""
    pauses = set()
    for name in ("a", "b"):
        dialogue = Dialogue(claim(EPOCH, Me(id=name, instance="x")))
        body = encode_record(Claim(id=name, epoch=4, claimed_ms=NOW_MS, instance="x"))
        dialogue.answer(Create(key=KEY, body=body), Created.UNDECIDED)
        dialogue.answer(Get(key=KEY), None)
        pauses.add(dialogue.pause())
    assert len(pauses) == 2


@pytest.mark.parametrize("body", [b"", b"{}", MINE[:-10], MINE.replace(b'"version":1', b'"version":2')], ids=repr)
def test_a_claim_that_cannot_be_read_is_anothers(body: bytes) -> None:
    """Damaged, or of a later version: somebody has the epoch, and it is not us."""
    assert claimant(body) is None
    dialogue = Dialogue(claim(EPOCH, ME))
    dialogue.answer(ATTEMPT, Created.TAKEN)
    dialogue.answer(Get(key=KEY), body)
    assert dialogue.result is False
