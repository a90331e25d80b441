"""The order in which a replica is copied, broken off everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import assume, given
from hypothesis import strategies as st

from replicad.layout import (
    ack_key,
    chunk_key,
    claim_key,
    end_key,
    handover_key,
    parse_manifest,
    parse_segment,
    parse_start,
    start_key,
)
from replicad.plan.copying import course_of, is_history
from replicad.plan.line import line_of_history
from replicad.plan.reach import reachable
from replicad.position import Epoch
from tests.support.line_of_keys import history, segment, snapshot, start
from tests.unit.plan.test_restore import World, worlds

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from replicad.plan.copying import Course
    from replicad.plan.line import History, Line

Sizes = dict[str, int]


def sizes_of(found: History) -> Sizes:
    """Return every object of a listing with its size; a start has one too."""
    sizes = {one.name: one.size_bytes for one in found.listing.segments}
    sizes |= {one.name: one.size_bytes for one in found.listing.manifests}
    return sizes | {start_key(epoch): 1 for epoch in found.starts}


def line_at(keys: Iterable[str], world: Mapping[str, int], source: History) -> Line | None:
    """Return the line that a destination with these keys shows; None while nothing says that there is one."""
    there = [(key, world[key]) for key in keys]
    epochs = {epoch for key, _ in there if (epoch := parse_start(key)) is not None}
    if not epochs:
        return None
    objects = [(key, size) for key, size in there if parse_start(key) is None]
    return line_of_history(history(objects, starts=[source.starts[epoch] for epoch in epochs]))


def order(course: Course, sizes: Sizes) -> list[str]:
    """Return the keys in the order in which they are sent; of the rest, as it is listed."""
    first = [*course.newest, *course.starts]
    rest = [key for key in sorted(sizes) if course.includes(key) and key not in first]
    return first + rest


def reaches_its_end(line: Line) -> bool:
    """Return whether the last transaction that anything tells of can be restored."""
    spans = reachable(line)
    return bool(spans) and spans[-1].last >= line.last_txid


def earlier(world: World, epoch: int, until: int) -> set[str]:
    """Return what was stored when the epoch was the newest, and `until` its newest transaction."""
    found: set[str] = set()
    for key in sizes_of(world.history()):
        part, manifest, begun = parse_segment(key), parse_manifest(key), parse_start(key)
        number = begun or (part.epoch if part else manifest.epoch if manifest else Epoch(0))
        last = part.last if part else manifest.txid if manifest else 0
        if number < epoch or (number == epoch and last <= until):
            found.add(key)
    return found


@given(world=worlds(), data=st.data())
def test_every_break_off_can_be_restored_from(world: World, data: st.DataObject) -> None:
    """Whatever was copied before, and wherever a copy ends, the last state that the destination tells of is reached.

    And from the first start on, what the destination calls its line is a part of the source's. Seen to fail with the
    snapshot behind the segments that follow it, with a start before its snapshot, and with starts of old epochs first.
    """
    source = world.history()
    assume(source.starts)
    line = line_of_history(source)
    assume(reaches_its_end(line))
    course, sizes = course_of(line, source.listing), sizes_of(source)
    assume(not any(part.until < part.stored.key.last for part in line.segments))  # see the test below
    epoch = data.draw(st.integers(0, max(source.starts)))
    there = earlier(world, epoch, data.draw(st.integers(0, 40))) if epoch else set()
    before = line_at(there, sizes, source)
    assume(before is None or reaches_its_end(before))
    truth = world.line()
    for key in order(course, sizes):
        there.add(key)
        shown = line_at(there, sizes, source)
        if shown is None:
            continue
        assert reaches_its_end(shown), key
        if shown.head == line.head:
            told = {part.until: part.stored.key.epoch for part in shown.segments}
            assert all(truth[txid][0] == epoch for txid, epoch in told.items())
    assert there == set(sizes)


def test_a_segment_that_a_later_epoch_cuts_goes_before_that_epochs_start() -> None:
    """What such a segment holds beyond the line is shown for one moment; the other order would show a gap."""
    objects = [snapshot(1, 1), segment(2, 9, 9), segment(8, 8, 20, epoch=2)]
    found = history(objects, starts=[start(1), start(2, 1, 7)])
    course = course_of(line_of_history(found), found.listing)
    assert course.newest == (
        snapshot(1, 1)[0],
        start_key(Epoch(1)),
        segment(2, 9, 9)[0],
        start_key(Epoch(2)),
        objects[2][0],
    )


def test_the_newest_state_goes_first() -> None:
    """Behind the newest snapshot only what was committed since is needed; all that is older can wait."""
    objects = [snapshot(1, 1), segment(2, 4, 4), snapshot(4, 4), segment(5, 5, 5), (end_key(Epoch(1)), 1)]
    found = history(objects, starts=[start(1)])
    course = course_of(line_of_history(found), found.listing)
    assert course.newest == (objects[2][0], start_key(Epoch(1)), objects[3][0], end_key(Epoch(1)))
    assert course.includes(objects[0][0])
    assert course.includes(objects[1][0])


def test_what_came_behind_the_listing_waits_for_the_next() -> None:
    """A newer segment, snapshot or epoch is left out: something between it and the listing may not be there yet."""
    found = history([snapshot(1, 1), segment(2, 4, 4)], starts=[start(1)])
    course = course_of(line_of_history(found), found.listing)
    assert course.includes("preserve/0000000000000006-00000001-3.json")  # a mark waits for nothing
    later = (
        segment(6, 6, 6)[0],
        snapshot(6, 6)[0],
        segment(5, 5, 5, epoch=2)[0],
        start_key(Epoch(2)),
        end_key(Epoch(1)),
    )
    assert not [key for key in later if course.includes(key)]


def test_notes_and_strange_keys_are_no_history() -> None:
    """Requests of a handover, their answers, probes and foreign keys stay where they are; all else goes."""
    epoch, name = Epoch(1), "0" * 64
    history_keys = [claim_key(epoch), start_key(epoch), end_key(epoch), chunk_key(epoch, name), segment(1, 1, 1)[0]]
    history_keys.append("preserve/0000000000000001-00000001-3.json")
    others = [handover_key(epoch), ack_key(epoch), "probes/00", "epochs/00000001/README", "notes.txt"]
    assert [key for key in (*history_keys, *others) if is_history(key)] == history_keys
