"""Restores that are killed at each step: `python -m tests.support.run_restore_killed URL TARGET`.

For each line on standard input, which holds a number, a child restores onto TARGET and is killed by SIGKILL at its
n-th change of a file (a file made, written, synced, renamed, removed): a write is done by half, the rest not at all.
Answers with a line: `killed` and what it was about to do, or `done` when there were fewer.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replicad.restore.request import RestoreRequest
from replicad.restore.restore import restore
from replicad.store.open import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

CHANGES = ("write", "pwrite", "pwritev", "fsync", "fdatasync", "ftruncate", "rename", "unlink", "link")


def die_at(number: int, said: int, changes: Sequence[str] = CHANGES) -> None:
    """Kill this process at its n-th change of a file."""
    left = number

    def wrapped(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def change(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - of any of them
            nonlocal left
            left -= 1
            if left == 0:
                write(said, f"killed {name} {arguments[0]}\n".encode())
                if name == "pwritev":
                    body = b"".join(arguments[1])
                    os_pwrite(arguments[0], body[: len(body) // 2], arguments[2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **named)

        return change

    write, os_pwrite = os.write, os.pwrite
    for name in changes:
        setattr(os, name, wrapped(name, getattr(os, name)))


async def main(url: str, target: Path) -> None:
    """Restore the latest state."""
    store = await open_store(url)
    try:
        await restore(store, RestoreRequest(path=target, force=True))
    finally:
        await store.close()


def answer_each(work: Callable[[], Coroutine[object, object, None]], changes: Sequence[str] = CHANGES) -> None:
    """For each number on standard input, have a child do the work and die at its n-th change; say how it ended."""
    answers = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # log lines are no answers
    for line in sys.stdin:
        if child := os.fork():
            _, status = os.waitpid(child, 0)
            if os.WIFEXITED(status):
                os.write(answers, b"done\n" if status == 0 else f"failed with {status}\n".encode())
        else:
            die_at(int(line), answers, changes)
            asyncio.run(work())
            os._exit(0)


if __name__ == "__main__":
    answer_each(lambda: main(sys.argv[1], Path(sys.argv[2])))
