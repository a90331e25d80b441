"""Neighbours in an object put together, as many as one request should bring."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")


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
