"""Objects one after another, in blocks that are fetched ahead: memory is a few blocks, whatever their size."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

    from replicad.store.protocol import ObjectStore

_BLOCK_BYTES = 4 << 20
_AHEAD = 6


async def in_blocks(
    store: ObjectStore, objects: Sequence[tuple[str, int]]
) -> AsyncGenerator[tuple[str, asyncio.Task[bytes]]]:
    """Iterate over (key, block on its way) of each object in turn, front to back; also once for an empty one.

    Each block is awaited before the next one is asked for. To be closed (`aclosing`) by whoever leaves before the end.

    Args:
        store: where they are.
        objects: key and size of each.
    """
    ranges = _ranges(objects)
    fetching: deque[tuple[str, asyncio.Task[bytes]]] = deque()
    try:
        while True:
            while len(fetching) < _AHEAD and (wanted := next(ranges, None)) is not None:
                key, start, stop = wanted
                fetching.append((key, asyncio.create_task(store.get(key, start=start, stop=stop))))
            if not fetching:
                return
            key, task = fetching[0]
            yield key, task
            fetching.popleft()
    finally:
        for _, task in fetching:
            task.cancel()
        await asyncio.gather(*(task for _, task in fetching), return_exceptions=True)


def _ranges(objects: Sequence[tuple[str, int]]) -> Iterator[tuple[str, int, int]]:
    for key, size_bytes in objects:
        for start in range(0, max(1, size_bytes), _BLOCK_BYTES):
            yield key, start, min(start + _BLOCK_BYTES, max(1, size_bytes))
