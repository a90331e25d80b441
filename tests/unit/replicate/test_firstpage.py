from __future__ import annotations

from replicad.replicate.firstpage import FirstPages


def test_anything_before_the_first_rest() -> None:
    """Until every frame was copied once, nothing can be said about what stands in the file."""
    pages = FirstPages()
    pages.commit(1)
    assert pages.allow(99)


def test_only_what_was_committed_since() -> None:
    """Behind a rest the file has its page 1 or that of a commit since, and no other."""
    pages = FirstPages()
    pages.settle(1)
    assert pages.allow(1)
    assert not pages.allow(2)
    pages.commit(2)
    pages.commit(3)
    assert all(pages.allow(number) for number in (1, 2, 3))
    assert not pages.allow(4)
    pages.settle(3)
    assert not pages.allow(1)
    assert not pages.allow(2)
    assert pages.allow(3)


def test_frames_that_nobody_read() -> None:
    """When frames may have been copied unread, anything may stand there, until the next rest."""
    pages = FirstPages()
    pages.settle(1)
    pages.forget()
    pages.commit(2)
    assert pages.allow(99)
    pages.settle(5)
    assert not pages.allow(99)


def test_memory_is_bounded() -> None:
    """A WAL that is never copied as a whole does not fill the memory: beyond a limit nothing is claimed any more."""
    pages = FirstPages()
    pages.settle(0)
    for number in range(20_000):
        pages.commit(number)
    assert pages.allow(-1)
