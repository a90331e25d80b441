from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.errors import HistoryGap, NoBackup
from replicad.litestream.generations import read_generations
from replicad.litestream.plan import LTXFile, plan_newest, read_ltx_listing
from replicad.store.protocol import StoredObject
from tests.support.ltx_files import key

WHEN = datetime(2026, 1, 31, 12, tzinfo=UTC)


def listed(*keys: str, size_bytes: int = 100) -> list[StoredObject]:
    """Return rows of a listing."""
    return [StoredObject(key=one, size_bytes=size_bytes, modified_at=WHEN) for one in keys]


def file(level: int, first: int, last: int) -> LTXFile:
    """Return a file of a listing."""
    (found,), _ = read_ltx_listing(listed(key(level, first, last)))
    return found


def spans(way: list[LTXFile]) -> list[tuple[int, int, int]]:
    """Return what a way is made of."""
    return [(one.level, one.first, one.last) for one in way]


def test_both_layouts() -> None:
    """Levels are folders below ltx/ in a folder, four digits in a bucket; anything else is passed over."""
    keys = (key(0, 1, 2), key(9, 1, 31, bucket=True), "ltx/0/x.ltx", "ltx/0/0-1.ltx", key(0, 3, 3) + ".tmp", "a")
    files, elsewhere = read_ltx_listing(listed(*keys))
    assert [(one.level, one.first, one.last) for one in files] == [(0, 1, 2), (9, 1, 31)]
    assert files[0].written_ms == round(WHEN.timestamp() * 1000)
    assert elsewhere == set()


def test_replicas_below() -> None:
    """A folder above replicas has none of its own, and says where they are."""
    keys = ("app.db/" + key(0, 1, 1, bucket=True), "b/c/" + key(0, 1, 1), "b/c/" + key(0, 2, 2))
    assert read_ltx_listing(listed(*keys)) == ([], {"app.db/", "b/c/"})


def test_the_newest_snapshot_then_the_longest() -> None:
    """From the newest snapshot on, the file that joins and reaches furthest: of a high level, then of lower ones."""
    files = [file(9, 1, 10), file(9, 1, 4), file(0, 16, 16), file(2, 5, 14), file(1, 11, 15), file(1, 11, 12)]
    files += [file(0, number, number) for number in range(1, 16)]
    assert spans(plan_newest(files, label="x")) == [(9, 1, 10), (1, 11, 15), (0, 16, 16)]


def test_without_a_snapshot() -> None:
    """Before the first snapshot, the file that begins with transaction 1 holds every page."""
    assert spans(plan_newest([file(0, 2, 2), file(0, 1, 1), file(1, 1, 1)], label="x")) == [(1, 1, 1), (0, 2, 2)]


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ([file(0, 2, 2)], "reach transaction 0, the next one begins with 2"),
        ([file(9, 1, 4), file(0, 6, 6)], "reach transaction 4, the next one begins with 6"),
    ],
)
def test_a_gap(files: list[LTXFile], found: str) -> None:
    """Where nothing joins, that is an error, not an older state."""
    with pytest.raises(HistoryGap, match=found):
        plan_newest(files, label="x")


def test_nothing() -> None:
    """No files, or none that can be used, is no backup."""
    with pytest.raises(NoBackup):
        plan_newest([], label="x")
    one = file(9, 1, 4)
    with pytest.raises(NoBackup):
        plan_newest([one], label="x", without={one.key})


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 30), st.integers(0, 12)), min_size=1, max_size=30),
    st.randoms(),
)
def test_any_listing(shapes: list[tuple[int, int, int]], dice: object) -> None:
    """A way begins with transaction 1, has no gap, and ends at the newest; or there is an error."""
    files = [file(level, 1 if level == 9 else first, first + more) for level, first, more in shapes]
    del dice
    try:
        way = plan_newest(files, label="x")
    except HistoryGap:
        return
    reached = 0
    assert way[0].first == 1
    for one in way:
        assert one.first <= reached + 1 <= one.last
        reached = one.last
    assert reached == max(one.last for one in files)


def generation(*names: str) -> list[StoredObject]:
    """Return a generation's objects."""
    return listed(*(f"generations/{'ab' * 8}/{name}.lz4" for name in names))


def test_a_generation() -> None:
    """The newest snapshot, and the WAL from its index on, in order."""
    names = ["snapshots/00000000.snapshot", "snapshots/00000002.snapshot", "wal/00000001_00000000.wal"]
    names += ["wal/00000003_00000000.wal", "wal/00000002_00001000.wal", "wal/00000002_00000000.wal"]
    (found,), _ = read_generations(generation(*names))
    assert [(one.index, one.offset) for one in found.newest(label="x")] == [(2, None), (2, 0), (2, 4096), (3, 0)]


@pytest.mark.parametrize(
    "names",
    [
        ("wal/00000000_00000000.wal",),
        ("snapshots/00000000.snapshot", "wal/00000001_00000000.wal"),
        ("snapshots/00000000.snapshot", "wal/00000000_00000000.wal", "wal/00000002_00000000.wal"),
        ("snapshots/00000000.snapshot", "wal/00000000_00001000.wal"),
    ],
    ids=["no-snapshot", "first-wal", "a-wal", "first-piece"],
)
def test_a_generation_with_a_gap(names: tuple[str, ...]) -> None:
    """A generation of which a part is gone is an error, not an older state."""
    (found,), _ = read_generations(generation(*names))
    with pytest.raises(HistoryGap):
        found.newest(label="x")


def test_the_newest_generation() -> None:
    """A generation is as new as what was stored in it last."""
    rows = generation("snapshots/00000000.snapshot", "wal/00000000_00000000.wal")
    rows[1] = replace(rows[1], modified_at=datetime(2026, 2, 1, tzinfo=UTC))
    (found,), _ = read_generations(rows)
    assert found.written_ms == round(datetime(2026, 2, 1, tzinfo=UTC).timestamp() * 1000)
