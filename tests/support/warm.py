"""Commands of replicad's, each in a process of its own that need not load it first: forked from one that has.

    with warm_programs():                                          # once, in a fixture of the session
        ended = run_warm(["verify", "--json"], environment)

Loading takes up to half a second of one core, which is most of what a command costs, and a test run has hundreds of
them. `run` is not for this: how a daemon starts is what its tests are about.

The process that forks has no thread and no event loop; it ends with the one that asks.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_REPOSITORY = Path(__file__).parents[2]
_END_SECONDS = 60.0
_MAX_BYTES = 128 << 10


_servers: list[socket.socket] = []


@contextlib.contextmanager
def warm_programs() -> Iterator[None]:
    """Have the process that forks ready."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-m", "tests.support.warm", str(theirs.fileno())]
    with theirs:
        forking = subprocess.Popen(command, cwd=_REPOSITORY, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    _servers.append(ours)
    try:
        yield
    finally:
        _servers.remove(ours)
        ours.close()
        forking.wait(_END_SECONDS)


def run_warm(
    arguments: Sequence[str], environment: Mapping[str, str], *, seconds: int = 60
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with nothing on standard input; after so many seconds it is ended by SIGALRM."""
    server = _servers[-1]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        asked = json.dumps([list(arguments), dict(environment), seconds]).encode()
        socket.send_fds(server, [asked], [out.fileno(), errors.fileno()])
        status = int(server.recv(16))
        out.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(list(arguments), status, out.read().decode(), errors.read().decode())


def _load_everything() -> None:
    import replicad  # noqa: PLC0415 - in the process that forks alone

    for module in pkgutil.walk_packages(replicad.__path__, "replicad."):
        if module.name != "replicad.__main__":
            importlib.import_module(module.name)


def _serve(asking: socket.socket) -> int:
    """Fork for each request; return in the child, with the exit code of its command, and when nobody asks any more."""
    while True:
        asked, descriptors, _, _ = socket.recv_fds(asking, _MAX_BYTES, 2)
        if not asked:
            return 0
        arguments, environment, seconds = json.loads(asked)
        if not (child := os.fork()):
            asking.close()
            signal.alarm(seconds)
            return _run(arguments, environment, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        asking.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())


def _run(arguments: Sequence[str], environment: Mapping[str, str], descriptors: Sequence[int]) -> int:
    from replicad.cli.main import main  # noqa: PLC0415 - loaded long ago

    for number, descriptor in enumerate(descriptors, start=1):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    return main(arguments)


if __name__ == "__main__":
    _load_everything()
    sys.exit(_serve(socket.socket(fileno=int(sys.argv[1]))))
