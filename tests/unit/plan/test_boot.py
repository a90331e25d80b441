from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from replicad.plan.boot import Course, Local, decide
from replicad.position import TXID, Epoch, Position

HEAD = Position(epoch=Epoch(3), txid=TXID(100), checksum=0xABC, pages=50)
EARLIER = Position(epoch=Epoch(2), txid=TXID(60), checksum=0x123, pages=40)
LOCAL = Local(proven=False, checksum=0xFFF, pages=50, recorded=None, same_database=True, all_noted=False)


def test_nothing_stored() -> None:
    """Without a history, what stands here begins it, whether a file is here or not."""
    assert decide(None, None) is Course.FIRST
    assert decide(LOCAL, None) is Course.FIRST


def test_nothing_here() -> None:
    """Without a file the head is restored."""
    assert decide(None, HEAD) is Course.RESTORE


def test_a_proven_file_goes_on() -> None:
    """A file that is the head, or leads on from it by its WAL, is gone on with, whatever its state file says."""
    assert decide(replace(LOCAL, proven=True), HEAD) is Course.GO_ON
    assert decide(replace(LOCAL, proven=True, same_database=False), HEAD) is Course.GO_ON


def test_the_owners_own_file() -> None:
    """A file written to while no replicad ran is stored as it is, when nobody else has written the history since."""
    assert decide(replace(LOCAL, recorded=EARLIER, all_noted=True), HEAD) is Course.STORE_LOCAL
    assert decide(replace(LOCAL, recorded=HEAD), HEAD) is Course.STORE_LOCAL


def test_an_epoch_that_begins_at_its_parents_end() -> None:
    """A state is the head by its TXID and checksum, in whichever of two epochs it is recorded.

    Seen to fail while the epoch had to be the same: after a second clean restart, what the application had written
    between the two was kept aside.
    """
    assert decide(replace(LOCAL, recorded=replace(HEAD, epoch=Epoch(4))), HEAD) is Course.STORE_LOCAL


def test_an_older_disk() -> None:
    """An earlier state of the line is brought forward, if it was not written to since; else it is kept aside."""
    untouched = replace(LOCAL, recorded=EARLIER, checksum=EARLIER.checksum, pages=EARLIER.pages)
    assert decide(untouched, HEAD) is Course.FORWARD
    assert decide(replace(untouched, checksum=1), HEAD) is Course.ASIDE
    assert decide(replace(untouched, pages=41), HEAD) is Course.ASIDE


def test_a_disk_that_lost_the_last_transaction() -> None:
    """A state that is stored is never stored again over a later one, even if nobody else has written since.

    The disk lost power before the last transaction was on it, or it is a copy of a disk whose owner has shipped once
    more. Seen to fail while the claim alone decided: the older state was stored behind the newer one.
    """
    untouched = replace(LOCAL, recorded=EARLIER, checksum=EARLIER.checksum, pages=EARLIER.pages, all_noted=True)
    assert decide(untouched, HEAD) is Course.FORWARD


def test_a_file_of_another_history() -> None:
    """A file without a state file, or of another database, is kept aside: that it exists says nothing."""
    assert decide(LOCAL, HEAD) is Course.ASIDE
    assert decide(replace(LOCAL, recorded=HEAD, same_database=False, all_noted=True), HEAD) is Course.ASIDE


positions = st.builds(
    lambda epoch, txid, checksum, pages: Position(epoch=Epoch(epoch), txid=TXID(txid), checksum=checksum, pages=pages),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 2),
    st.integers(1, 2),
)
locals_ = st.builds(
    Local,
    proven=st.booleans(),
    checksum=st.integers(0, 2),
    pages=st.integers(1, 2),
    recorded=st.none() | positions,
    same_database=st.booleans(),
    all_noted=st.booleans(),
)


@given(local=st.none() | locals_, head=st.none() | positions)
def test_no_file_is_replaced_that_may_hold_more(local: Local | None, head: Position | None) -> None:
    """A file is restored over only when it is, byte for byte, an earlier state that was recorded."""
    course = decide(local, head)
    if local is not None:
        assert course is not Course.RESTORE
    if course is Course.FORWARD:
        assert local is not None
        assert local.recorded is not None
        assert (local.checksum, local.pages) == (local.recorded.checksum, local.recorded.pages)
        assert head is not None
        assert local.recorded.txid < head.txid
        assert local.same_database
    if local is not None and local.proven and head is not None:
        assert course is Course.GO_ON
