from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from replicad.restore.rows import rows


@given(sizes=st.lists(st.integers(0, 50)), most_bytes=st.integers(0, 100))
def test_neighbours_in_rows(sizes: list[int], most_bytes: int) -> None:
    """All are there, in order, in rows that hold no more than they may but for one alone, and none could be joined."""
    found = list(rows(sizes, lambda size: size, most_bytes=most_bytes))
    assert [size for row in found for size in row] == sizes
    assert all(row and (len(row) == 1 or sum(row) <= most_bytes) for row in found)
    assert all(sum(row) + later[0] > most_bytes for row, later in pairwise(found))


@given(numbers=st.sets(st.integers(0, 30)))
def test_neighbours_with_gaps(numbers: set[int]) -> None:
    """What does not follow what is before it begins a row."""
    found = list(rows(sorted(numbers), lambda _: 1, most_bytes=100, joins=lambda one, other: other == one + 1))
    assert [number for row in found for number in row] == sorted(numbers)
    assert all(row == list(range(row[0], row[-1] + 1)) for row in found)
    assert all(later[0] > row[-1] + 1 for row, later in pairwise(found))
