"""Copies that are killed at each step: `python -m tests.support.run_copy_killed REPLICA DESTINATION NAME`.

For each line on standard input, which holds a number, a child copies the database NAME and is killed by SIGKILL when
it is about to do its n-th change in the destination's folder. Answers with a line: `killed`, or `done` when there were
fewer.
"""

from __future__ import annotations

import asyncio
import os
import sys

from replicad.host.threads import Threads
from replicad.mirror.copying import CopyOptions, copy_replica
from replicad.mirror.side import Side
from replicad.store.open import open_store
from replicad.store.prefixed import PrefixedStore
from tests.support.run_restore_killed import die_at


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
    answers = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # log lines are no answers
    for line in sys.stdin:
        if child := os.fork():
            _, status = os.waitpid(child, 0)
            if os.WIFEXITED(status):
                os.write(answers, b"done\n" if status == 0 else f"failed with {status}\n".encode())
        else:
            die_at(int(line), answers, changes=("fsync", "replace", "link", "unlink"))
            asyncio.run(main(*sys.argv[1:]))
            os._exit(0)
