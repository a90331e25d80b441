from __future__ import annotations

from replicad.layout import ack_key, claim_key, start_key
from replicad.ownership.claim import Me
from replicad.ownership.owner import Reclaimed
from replicad.ownership.records import Claim, encode_record
from replicad.ownership.requests import Claims, Create, Created, Exists, Get
from replicad.ownership.standby import stand_by
from replicad.ownership.timing import Timing
from replicad.position import Epoch
from tests.support.dialogue import AWAY, NOW_MS, Dialogue

ME = Me(id="c0ffee", instance="web-1")
TIMING = Timing()


def attempt(epoch: int) -> Create:
    """Return our own attempt to claim."""
    body = encode_record(Claim(id="c0ffee", epoch=epoch, claimed_ms=NOW_MS, instance="web-1"))
    return Create(key=claim_key(Epoch(epoch)), body=body)


def started(epoch: int) -> Exists:
    """Return a look for the epoch's first word."""
    return Exists(key=start_key(Epoch(epoch)))


def look(dialogue: Dialogue, sign: bytes | None) -> None:
    """Answer one look: epoch 4 is claimed and has no start."""
    dialogue.answer(Claims(), 4)
    dialogue.answer(started(4), answer=False)
    dialogue.answer(Get(key=ack_key(Epoch(5))), sign)


def silent() -> Dialogue:
    """Return a dialogue with one that stands by behind epoch 3 and has heard nothing for the timeout."""
    dialogue = Dialogue(stand_by(Epoch(3), ME, TIMING))
    for _ in range(30):
        look(dialogue, None)
        assert dialogue.pause() == TIMING.newcomer_poll_seconds
    look(dialogue, None)
    return dialogue


def test_a_successor_that_begins_retires_us() -> None:
    """Once somebody has begun an epoch behind ours, nothing is asked any more."""
    dialogue = Dialogue(stand_by(Epoch(3), ME, TIMING))
    look(dialogue, None)
    dialogue.pause()
    dialogue.answer(Claims(), 5)
    dialogue.answer(started(4), answer=False)
    dialogue.answer(started(5), answer=True)
    assert (dialogue.is_over, dialogue.result) == (True, None)


def test_a_successor_that_died_is_followed() -> None:
    """Who claimed and gave no sign of life is followed by a claim of ours, and the local file goes on."""
    dialogue = silent()
    dialogue.answer(attempt(5), Created.MADE)
    dialogue.answer(started(4), answer=False)
    dialogue.answer(started(5), answer=False)
    assert dialogue.result == Reclaimed(epoch=Epoch(5), claim_id="c0ffee", restore=False)


def test_a_successor_that_lived_after_all() -> None:
    """A start that came between the look and the claim is seen behind the claim: the line is restored then."""
    dialogue = silent()
    dialogue.answer(attempt(5), Created.MADE)
    dialogue.answer(started(4), AWAY)
    dialogue.pause()
    dialogue.answer(started(4), answer=True)
    assert dialogue.result == Reclaimed(epoch=Epoch(5), claim_id="c0ffee", restore=True)


def test_a_successor_that_takes_its_time_is_left_alone() -> None:
    """Signs of life are waited for, however long the restore takes."""
    dialogue = Dialogue(stand_by(Epoch(3), ME, TIMING))
    for number in range(600):
        look(dialogue, str(number // 10).encode())
        dialogue.pause()
    assert dialogue.asked == Claims()


def test_a_store_that_is_away_says_nothing_about_the_successor() -> None:
    """After an outage what happened meanwhile is looked at before anything is claimed."""
    dialogue = Dialogue(stand_by(Epoch(3), ME, TIMING))
    look(dialogue, b"1")
    for _ in range(60):
        dialogue.pause()
        dialogue.answer(Claims(), AWAY)
    dialogue.pause()
    look(dialogue, b"2")
    assert dialogue.pause() == TIMING.newcomer_poll_seconds


def test_a_lost_claim_goes_on_standing_by() -> None:
    """Another that was faster is the one to look at now."""
    dialogue = silent()
    dialogue.answer(attempt(5), Created.TAKEN)
    dialogue.answer(Get(key=claim_key(Epoch(5))), attempt(5).body.replace(b"c0ffee", b"decaf"))
    dialogue.pause()
    dialogue.answer(Claims(), 5)
    assert dialogue.asked == started(4)


def test_an_undecided_claim_is_settled_in_its_own_time() -> None:
    """A claim that stayed open is found at a later look like anybody's, and followed."""
    dialogue = silent()
    dialogue.answer(attempt(5), Created.UNDECIDED)
    dialogue.answer(Get(key=claim_key(Epoch(5))), AWAY)
    dialogue.pause()
    assert dialogue.asked == Claims()
