"""Copies that are killed at each step: `python -m tests.support.run_copy_killed REPLICA DESTINATION NAME`.

For each line on standard input, which holds a number, a child copies the database NAME and is killed by SIGKILL when
it is about to do its n-th change in the destination's folder. Answers with a line: `killed`, or `done` when there were
fewer.
"""

from __future__ import annotations

import sys

from replicad.host.threads import Threads
from replicad.mirror.copying import CopyOptions, copy_replica
from replicad.mirror.side import Side
from replicad.store.open import open_store
from replicad.store.prefixed import PrefixedStore
from tests.support.run_restore_killed import answer_each


async def main(replica: str, destination: str, name: str) -> None:
    """Copy all that is missing."""
    here, there, threads = await open_store(replica), await open_store(destination), Threads("copy", 2)
    source, copy = (Side.plain(PrefixedStore(store, f"{name}/")) for store in (here, there))
    try:
        await copy_replica(source, copy, threads, options=CopyOptions())
    finally:
        await threads.close()
        await here.close()
        await there.close()


if __name__ == "__main__":
    answer_each(lambda: main(*sys.argv[1:]), changes=("fsync", "replace", "link", "unlink"))
