"""A restore as a program of its own, which says what it took: `python -m tests.support.run_restore URL TARGET`."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from replicad.restore.request import RestoreRequest
from replicad.restore.restore import restore
from replicad.store.open import open_store
from tests.support.memory import most_resident_bytes


async def main(url: str, target: Path) -> None:
    """Restore the latest state, and print what it took as JSON."""
    store = await open_store(url)
    try:
        restored = await restore(store, RestoreRequest(path=target, force=True))
    finally:
        await store.close()
    print(  # noqa: T201 - read by the test
        json.dumps(
            {
                "resident_bytes": most_resident_bytes(),
                "checksum": restored.checksum,
                "fetched_bytes": restored.fetched_bytes,
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
