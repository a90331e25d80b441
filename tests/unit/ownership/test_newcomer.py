from __future__ import annotations

import pytest

from replicad.errors import StoreUnreachable
from replicad.layout import ack_key, claim_key, end_key, handover_key
from replicad.ownership.claim import Me
from replicad.ownership.newcomer import Ownership, Recorded, Refused, take_if_given, take_over
from replicad.ownership.records import Claim, HandoverRequest, encode_record
from replicad.ownership.requests import Claims, Create, Created, Exists, Get, Happened, Put, Steps, Warm
from replicad.ownership.timing import Timing
from replicad.position import Epoch
from tests.support.dialogue import AWAY, NOW_MS, Dialogue

ME = Me(id="c0ffee", instance="web-1")
TIMING = Timing()


def claim_of(who: str, epoch: int) -> bytes:
    """Return the stored claim."""
    return encode_record(Claim(id=who, epoch=epoch, claimed_ms=NOW_MS, instance="web-1"))


def attempt(epoch: int) -> Create:
    """Return our own attempt to claim."""
    return Create(key=claim_key(Epoch(epoch)), body=claim_of("c0ffee", epoch))


def request(epoch: int) -> Put:
    """Return our own request."""
    body = encode_record(HandoverRequest(id="c0ffee", epoch=epoch, requested_ms=NOW_MS, instance="web-1"))
    return Put(key=handover_key(Epoch(epoch)), body=body)


def read_claim(epoch: int) -> Get:
    """Return a look at who claimed."""
    return Get(key=claim_key(Epoch(epoch)))


def waiting(
    recorded: Recorded | None = None, *, stale: bytes | None = None, asking: Steps[object] | None = None
) -> Dialogue:
    """Return a dialogue with a newcomer that has asked the owner of epoch 3 and waits."""
    dialogue = Dialogue(asking or take_over(ME, TIMING, recorded))
    dialogue.answer(Claims(), 3)
    dialogue.answer(Exists(key=end_key(Epoch(3))), answer=False)
    dialogue.answer(read_claim(3), claim_of("another", 3))
    dialogue.answer(Warm(epoch=Epoch(3)))
    dialogue.answer(Get(key=ack_key(Epoch(4))), stale)
    dialogue.answer(request(4))
    return dialogue


def look(dialogue: Dialogue, *, claimed: bool = False, ended: bool = False, sign: bytes | None = None) -> None:
    """Let one round of looking go by, and answer it."""
    assert dialogue.pause() == TIMING.newcomer_poll_seconds
    dialogue.answer(Exists(key=claim_key(Epoch(4))), claimed)
    if claimed:
        return
    dialogue.answer(Exists(key=end_key(Epoch(3))), ended)
    if not ended:
        dialogue.answer(Get(key=ack_key(Epoch(4))), sign)


def owns(dialogue: Dialogue, epoch: int, *, continued: bool = False) -> bool:
    """Return whether the dialogue ended with this ownership."""
    return dialogue.result == Ownership(epoch=Epoch(epoch), claim_id="c0ffee", continued=continued)


def test_the_first_instance_claims_at_once() -> None:
    """Where nothing was ever claimed nobody is asked."""
    dialogue = Dialogue(take_over(ME, TIMING))
    dialogue.answer(Claims(), 0)
    dialogue.answer(attempt(1), Created.MADE)
    assert owns(dialogue, 1)


def test_an_ended_epoch_is_followed_at_once() -> None:
    """Where the owner ended its epoch nobody is asked."""
    dialogue = Dialogue(take_over(ME, TIMING))
    dialogue.answer(Claims(), 3)
    dialogue.answer(Exists(key=end_key(Epoch(3))), answer=True)
    dialogue.answer(attempt(4), Created.MADE)
    assert owns(dialogue, 4)


def test_the_same_disk_need_not_wait() -> None:
    """Behind its own recorded claim an instance claims the next epoch at once; it never goes on in the old one.

    Two copies of one disk name the same claim, and requests of the former life may still be on their way.
    """
    dialogue = Dialogue(take_over(ME, TIMING, Recorded(epoch=Epoch(3), claim_id="former")))
    dialogue.answer(Claims(), 3)
    dialogue.answer(read_claim(3), claim_of("former", 3))
    dialogue.answer(attempt(4), Created.MADE)
    assert owns(dialogue, 4, continued=True)


def test_a_disk_that_was_overtaken_waits() -> None:
    """A recorded claim that is not the highest says nothing about who owns now."""
    dialogue = Dialogue(take_over(ME, TIMING, Recorded(epoch=Epoch(2), claim_id="former")))
    dialogue.answer(Claims(), 3)
    dialogue.answer(read_claim(3), claim_of("another", 3))
    dialogue.answer(Exists(key=end_key(Epoch(3))), answer=False)
    dialogue.answer(read_claim(3), claim_of("another", 3))
    assert dialogue.asked == Warm(epoch=Epoch(3))


def test_the_other_disk_with_the_same_epoch_waits() -> None:
    """An epoch number alone proves nothing: the claim's id must be the recorded one."""
    dialogue = Dialogue(take_over(ME, TIMING, Recorded(epoch=Epoch(3), claim_id="former")))
    dialogue.answer(Claims(), 3)
    dialogue.answer(read_claim(3), claim_of("another", 3))
    dialogue.answer(Exists(key=end_key(Epoch(3))), answer=False)
    dialogue.answer(read_claim(3), claim_of("another", 3))
    assert dialogue.asked == Warm(epoch=Epoch(3))


def test_an_own_attempt_that_came_through_late_is_passed_over() -> None:
    """A claim of one's own that was given up shows that nobody need be asked, and is not used: the next one is.

    What stood before it is still known, so a restart on the same disk stays one.
    """
    dialogue = Dialogue(take_over(ME, TIMING, Recorded(epoch=Epoch(3), claim_id="former")))
    dialogue.answer(Claims(), 4)
    dialogue.answer(read_claim(4), claim_of("c0ffee", 4))
    dialogue.answer(read_claim(3), claim_of("former", 3))
    dialogue.answer(attempt(5), Created.MADE)
    assert owns(dialogue, 5, continued=True)


def test_the_owner_is_asked_and_ends() -> None:
    """A newcomer warms up, asks, and claims when the end is there."""
    dialogue = waiting()
    look(dialogue)
    look(dialogue, sign=b"1")
    look(dialogue, ended=True)
    dialogue.answer(attempt(4), Created.MADE)
    assert owns(dialogue, 4)
    assert Happened.OWNER_SILENT not in dialogue.happened


def test_silence_is_death() -> None:
    """An owner that gave no sign of life for three of its polls and some is not waited for."""
    dialogue = waiting()
    for _ in range(19):
        look(dialogue)
    assert dialogue.happened == [Happened.ASKED]
    look(dialogue)
    dialogue.answer(attempt(4), Created.MADE)
    assert owns(dialogue, 4)
    assert Happened.OWNER_SILENT in dialogue.happened
    assert TIMING.silence_seconds == 20


def test_signs_of_life_are_waited_for() -> None:
    """An owner whose answer changes is alive, however long it takes; up to the newcomer's patience."""
    dialogue = waiting()
    rounds = 0
    while Happened.OWNER_SILENT not in dialogue.happened:
        rounds += 1
        look(dialogue, sign=str(rounds // 25).encode())
    assert rounds == 301, "the first answer came after a second"


def test_an_answer_that_stays_the_same_is_no_sign_of_life() -> None:
    """An owner that answered once and then fell silent is waited for no longer than the timeout."""
    dialogue = waiting()
    for _ in range(30):
        look(dialogue, sign=b"1")
        assert Happened.OWNER_SILENT not in dialogue.happened
    look(dialogue, sign=b"1")
    assert dialogue.asked == attempt(4)


def test_what_was_said_before_the_request_is_no_sign_of_life() -> None:
    """An answer left from the owner's own start, or for somebody else, counts as none: the owner may be long dead."""
    dialogue = waiting(stale=b"1")
    for _ in range(19):
        look(dialogue, sign=b"1")
        assert Happened.OWNER_SILENT not in dialogue.happened
    look(dialogue, sign=b"1")
    assert dialogue.asked == attempt(4)


def test_a_newcomer_that_stood_still_looks_before_it_claims() -> None:
    """After a stop longer than any timeout what happened meanwhile is seen first."""
    dialogue = waiting()
    dialogue.pause(longer_by=3600)
    dialogue.answer(Exists(key=claim_key(Epoch(4))), answer=False)
    dialogue.answer(Exists(key=end_key(Epoch(3))), answer=False)
    dialogue.answer(Get(key=ack_key(Epoch(4))), b"1")
    look(dialogue, ended=True)
    assert Happened.OWNER_SILENT not in dialogue.happened


def test_somebody_else_was_faster() -> None:
    """Who is overtaken starts over, and asks the new owner."""
    dialogue = waiting()
    look(dialogue, claimed=True)
    dialogue.answer(Claims(), 4)
    dialogue.answer(Exists(key=end_key(Epoch(4))), answer=False)
    assert dialogue.asked == read_claim(4)


def test_a_lost_claim_starts_over() -> None:
    """Of two that see the end one wins; the other asks it."""
    dialogue = waiting()
    look(dialogue, ended=True)
    dialogue.answer(attempt(4), Created.TAKEN)
    dialogue.answer(read_claim(4), claim_of("another", 4))
    assert dialogue.asked == Claims()


def test_a_request_that_was_not_stored_was_not_made() -> None:
    """A newcomer whose request got no answer does not begin to count silence: the owner may never have been asked."""
    dialogue = Dialogue(take_over(ME, TIMING))
    dialogue.answer(Claims(), 3)
    dialogue.answer(Exists(key=end_key(Epoch(3))), answer=False)
    dialogue.answer(read_claim(3), claim_of("another", 3))
    dialogue.answer(Warm(epoch=Epoch(3)))
    dialogue.answer(Get(key=ack_key(Epoch(4))), None)
    with pytest.raises(StoreUnreachable):
        dialogue.answer(request(4), AWAY)


def test_a_command_leaves_an_owner_that_lives() -> None:
    """Who can come again does not claim against an owner that answers, whatever it does not end; the time counts."""
    timing = Timing(patience_seconds=10.0)
    dialogue = waiting(asking=take_if_given(ME, timing))
    for sign in range(10):
        assert not dialogue.is_over
        look(dialogue, sign=str(sign).encode())
    assert dialogue.result == Refused(asked=Epoch(4))
    assert Happened.OWNER_SILENT not in dialogue.happened


def test_a_command_that_has_no_time_for_silence() -> None:
    """Before silence has lasted long enough to be death, the owner may live: it is left alone."""
    dialogue = waiting(asking=take_if_given(ME, Timing(patience_seconds=5.0)))
    for _ in range(5):
        assert not dialogue.is_over
        look(dialogue)
    assert dialogue.result == Refused(asked=Epoch(4))


def test_a_command_takes_what_is_given() -> None:
    """An end, or silence for as long as it takes, makes a command the owner, as any newcomer."""
    dialogue = waiting(asking=take_if_given(ME, TIMING))
    look(dialogue, sign=b"1")
    look(dialogue, ended=True)
    dialogue.answer(attempt(4), Created.MADE)
    assert owns(dialogue, 4)
    dialogue = waiting(asking=take_if_given(ME, TIMING))
    for _ in range(20):
        look(dialogue)
    dialogue.answer(attempt(4), Created.MADE)
    assert owns(dialogue, 4)
    assert Happened.OWNER_SILENT in dialogue.happened
