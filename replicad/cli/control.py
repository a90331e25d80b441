"""Requests to the running replicad, over its control socket."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from replicad import errors
from replicad.errors import DaemonAbsent, DaemonUnreachable, ReplicadError
from replicad.observe.sockets import check_path

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_CONNECT_SECONDS = 5.0
_MAX_HEAD_BYTES = 64 << 10


async def ask(
    socket: Path, path: str, *, method: str = "GET", timeout_seconds: float = 10.0
) -> tuple[int, Mapping[str, object]]:
    """Send one request; return the HTTP status and the JSON of the answer.

    Spoken by hand over an asyncio stream: an HTTP client would take longer to import than the answer takes.

    Args:
        socket: the control socket.
        path: path and query.
        method: GET, or POST for what changes state.
        timeout_seconds: for the whole of it.

    Raises:
        DaemonAbsent: nobody listens.
        DaemonUnreachable: nobody answers in time.
        UsageError: the path is too long for a socket.
    """
    check_path(socket)
    try:
        async with asyncio.timeout(timeout_seconds):
            return await _exchange(socket, path, method)
    except TimeoutError as error:
        raise DaemonUnreachable(path=socket, found=f"no answer within {timeout_seconds:g} s") from error
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise DaemonAbsent(path=socket, found=error.strerror) from error
    except (OSError, asyncio.IncompleteReadError, ValueError) as error:
        found = getattr(error, "strerror", None) or "the connection was closed in the middle of an answer"
        raise DaemonUnreachable(path=socket, found=found) from error


async def demand(
    socket: Path, path: str, *, method: str = "GET", timeout_seconds: float = 10.0
) -> Mapping[str, object]:
    """Send one request; return the JSON of the answer, or raise the daemon's error as if it were raised here.

    Raises:
        DaemonUnreachable: as `ask`.
        ReplicadError: what the daemon says, of its class where this version knows it.
    """
    status, answer = await ask(socket, path, method=method, timeout_seconds=timeout_seconds)
    if "error" in answer and status >= 400:  # noqa: PLR2004 - HTTP's first error status
        raise _as_raised(answer)
    return answer


async def _exchange(socket: Path, path: str, method: str) -> tuple[int, Mapping[str, object]]:
    async with asyncio.timeout(_CONNECT_SECONDS):
        reader, writer = await asyncio.open_unix_connection(socket, limit=_MAX_HEAD_BYTES)
    try:
        writer.write(f"{method} {path} HTTP/1.0\r\nHost: replicad\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        body = await reader.read()
        answer = json.loads(body)
        return int(head.split(" ", 2)[1]), answer if isinstance(answer, dict) else {}
    finally:
        writer.close()


def _as_raised(answer: Mapping[str, object]) -> ReplicadError:
    """Return the error of an answer: the same class, message and exit code, without the details behind them."""
    kind = getattr(errors, str(answer["error"]), None)
    known = kind if isinstance(kind, type) and issubclass(kind, ReplicadError) else ReplicadError
    raised = known.__new__(known)
    Exception.__init__(raised, str(answer.get("message", answer["error"])))
    raised.details = {}
    return raised
