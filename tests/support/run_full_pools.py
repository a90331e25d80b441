"""replicad with all threads of its pools there from the first moment: `python -m tests.support.run_full_pools run …`.

A pool starts a thread when more is asked of it at a time than ever before, so how many there are depends on how busy
the machine was. Here a pool is full as soon as it is made, and any further thread is one that somebody has left behind.
"""

from __future__ import annotations

import concurrent.futures
import sys
import threading
from typing import Any


class FullPool(concurrent.futures.ThreadPoolExecutor):
    """A pool that begins with as many threads as it may have."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - those of ThreadPoolExecutor
        super().__init__(*args, **kwargs)
        together = threading.Barrier(self._max_workers)
        for _ in range(self._max_workers):
            self.submit(together.wait)  # takes a thread for itself until the last of them is there


if __name__ == "__main__":
    concurrent.futures.ThreadPoolExecutor = FullPool  # type: ignore[misc] # asyncio looks there as well
    from replicad.cli.main import main

    sys.exit(main())
