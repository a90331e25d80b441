"""A restore to a pipe: put together and proven in a temporary folder first, for a pipe cannot be taken back."""

from __future__ import annotations

import dataclasses
import os
import select
import stat
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from replicad.errors import FileUnusable
from replicad.host.interruptible import Interrupted, interruptible
from replicad.host.threads import Threads
from replicad.restore.restore import restore

if TYPE_CHECKING:
    import threading

    from replicad.restore.progress import Progress
    from replicad.restore.request import Restored, RestoreRequest
    from replicad.store.protocol import ObjectStore

_PIECE_BYTES = 1 << 20
_LOOK_MS = 100  # between two looks at whether to stop, while nobody reads


async def restore_to_stream(
    store: ObjectStore, request: RestoreRequest, descriptor: int, progress: Progress | None = None
) -> Restored:
    """Restore as `restore` does, and write the database to an open descriptor.

    The database stands in the platform's folder for temporary files (`TMPDIR`) until it is written: not a byte of
    one that is not proven leaves. `request.path` only lends its name.

    Raises:
        FileUnusable: nobody reads the other end, or the temporary folder cannot be made.
        ReplicadError: as `restore`.
    """
    threads = Threads("stream", 1)
    try:
        folder = await threads.run(_make_folder)
        try:
            path = Path(folder.name) / (request.path.name or "database")
            restored = await restore(store, dataclasses.replace(request, path=path), progress)
            await interruptible(threads, partial(_copy, path, descriptor))
        finally:
            await threads.run(folder.cleanup)
    finally:
        await threads.close()
    return restored


def _make_folder() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="replicad-")
    except OSError as error:
        hint = "Set TMPDIR to a folder with room for the database."
        where = tempfile.gettempdir() if tempfile.tempdir else "the folder for temporary files"
        raise FileUnusable(path=where, operation="used", found=str(error), hint=hint) from error


def _copy(path: Path, descriptor: int, stop: threading.Event) -> None:
    """Write the file to the descriptor, looking now and then at whether somebody still waits."""
    try:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        # A pipe that polls as writable takes this much without waiting; of more, a sleeping reader could hold us up.
        most = _PIECE_BYTES if is_file else select.PIPE_BUF
        ready = select.poll()
        ready.register(descriptor, select.POLLOUT)
        with path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                rest = memoryview(piece)
                while rest:
                    if stop.is_set():
                        raise Interrupted
                    if is_file or ready.poll(_LOOK_MS):
                        rest = rest[os.write(descriptor, rest[:most]) :]
    except OSError as error:
        hint = "The database was restored and proven; what reads standard output ended early, or is full."
        found = error.strerror or repr(error)
        raise FileUnusable(path="standard output", operation="written", found=found, hint=hint) from error
