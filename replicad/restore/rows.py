"""Neighbours put together: in an object as many as one request should bring, in a file as one call should move."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")

IOV_MAX = os.sysconf("SC_IOV_MAX")
"""Pieces of memory that the system takes in one call."""


def rows(
    neighbours: Iterable[T],
    size_of: Callable[[T], int],
    *,
    most_bytes: int,
    joins: Callable[[T, T], bool] | None = None,
) -> Iterator[list[T]]:
    """Iterate over the neighbours in rows of up to so many bytes each; one that is larger is a row by itself.

    `joins` says whether the second of two follows the first without a gap; None: all do.
    """
    row: list[T] = []
    row_bytes = 0
    for one in neighbours:
        size_bytes = size_of(one)
        if row and (row_bytes + size_bytes > most_bytes or (joins is not None and not joins(row[-1], one))):
            yield row
            row, row_bytes = [], 0
        row.append(one)
        row_bytes += size_bytes
    if row:
        yield row


def page_rows(places: Iterable[tuple[int, int]]) -> Iterator[tuple[int, list[int]]]:
    """Iterate over (first place, the numbers beside) of places that follow one another, for one call of the system.

    Args:
        places: each, counted in pages, with a number beside it; in any order.
    """
    row: list[int] = []
    first = 0
    for place, beside in sorted(places):
        if row and (place != first + len(row) or len(row) == IOV_MAX):
            yield first, row
            row = []
        if not row:
            first = place
        row.append(beside)
    if row:
        yield first, row
