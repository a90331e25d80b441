"""What uploads cost that say nothing: objects of one size in a rhythm, by the S3 client that replicad uses.

    python -m bench.peers.putter URL OBJECT_BYTES INTERVAL_SECONDS

Behind each it looks for an object that is not there, as an owner looks for one who took its place. It captures nothing.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

from replicad.errors import ObjectMissing
from replicad.store.open import open_store


async def put(url: str, object_bytes: int, interval_seconds: float) -> None:
    """Do so until killed."""
    store, body = await open_store(url), os.urandom(object_bytes)
    began, number = time.monotonic(), 0
    while True:
        await store.put(f"noise/{number:08}.seg", body)
        try:
            await store.get("noise/missing")
        except ObjectMissing:
            number += 1
        await asyncio.sleep(max(0.0, began + number * interval_seconds - time.monotonic()))


def main() -> None:
    """Do so."""
    url, object_bytes, interval_seconds = sys.argv[1:]
    asyncio.run(put(url, int(object_bytes), float(interval_seconds)))


if __name__ == "__main__":
    main()
