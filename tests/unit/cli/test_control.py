from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from replicad.cli.control import ask, demand
from replicad.errors import DaemonAbsent, DaemonUnreachable, NotReady, ReplicadError, StoreUnreachable, UsageError
from replicad.observe.http import HttpServer
from replicad.observe.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from pathlib import Path


class Answers:
    """A control that answers what it is told to."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    def status(self) -> Mapping[str, object]:
        """Return much."""
        return {"text": "x" * 300_000}

    def ready(self) -> tuple[bool, str]:
        """Return that it is not."""
        return False, "restoring"

    async def sync(self, *, timeout_seconds: float) -> Mapping[str, object]:
        """Return the timeout."""
        if self.error is not None:
            raise self.error
        return {"timeout_seconds": timeout_seconds}

    async def snapshot(self) -> Mapping[str, object]:
        """Return a TXID."""
        return {"txid": 7}

    async def prune(self, *, limit: int) -> Mapping[str, object]:
        """Return the limit."""
        return {"limit": limit}


@pytest.fixture
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a socket can stand."""
    return tmp_path_factory.mktemp("s") / "r.sock"


@pytest.fixture
async def answers(path: Path) -> AsyncIterator[Answers]:
    """A daemon's interface at the path."""
    control = Answers()
    server = HttpServer(control, Metrics(version="1", wall_seconds=time.time))
    await server.control(path)
    await server.serve()
    yield control
    await server.close()


@pytest.mark.usefixtures("answers")
async def test_answers_of_any_size(path: Path) -> None:
    """Status and body come back whole; a 503 without an error in it is an answer, too."""
    assert await ask(path, "/readyz") == (503, {"ready": False, "reason": "restoring"})
    assert len(str((await demand(path, "/status"))["text"])) == 300_000
    assert await demand(path, "/sync?timeout_seconds=2", method="POST") == {"timeout_seconds": 2.0}
    assert await demand(path, "/snapshot", method="POST") == {"txid": 7}
    assert await demand(path, "/prune?limit=3", method="POST") == {"limit": 3}
    with pytest.raises(UsageError, match="limit"):
        await demand(path, "/prune?limit=some", method="POST")


@pytest.mark.parametrize(
    "error",
    [
        NotReady(what="the sync", timeout_seconds=1, found="3 pending", hint="Wait."),
        StoreUnreachable(store="s3://bucket", operation="PUT", found="silence"),
        UsageError(where="a", expected="b", found="c", hint="d"),
    ],
)
async def test_an_error_comes_back_as_itself(path: Path, answers: Answers, error: ReplicadError) -> None:
    """An error of the daemon is raised here with its class, message and exit code."""
    answers.error = error
    with pytest.raises(type(error)) as raised:
        await demand(path, "/sync", method="POST")
    assert str(raised.value) == str(error)
    assert raised.value.exit_code == error.exit_code


async def test_an_error_of_no_known_class(path: Path, answers: Answers) -> None:
    """A defect of the daemon is an error here, with status 1."""
    answers.error = ZeroDivisionError("x")
    with pytest.raises(ReplicadError, match="unexpected") as raised:
        await demand(path, "/sync", method="POST")
    assert raised.value.exit_code == 1


async def test_nobody_listens(path: Path) -> None:
    """A missing socket is DaemonAbsent, which says where and why."""
    with pytest.raises(DaemonAbsent, match="No such file") as raised:
        await ask(path, "/status")
    assert str(path) in str(raised.value)


async def test_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    """A path that no socket can have is a usage error, not a missing daemon."""
    with pytest.raises(UsageError, match="control_socket"):
        await ask(tmp_path / ("x" * 200), "/status")


async def _silent(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def _gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.0 200 OK\r\n")


async def _nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.0 200 OK\r\n\r\nhello")


@pytest.mark.parametrize(
    ("behave", "found"),
    [(_silent, "no answer within 0.2 s"), (_gone, "closed in the middle"), (_nonsense, "closed in the middle")],
)
async def test_what_answers_is_no_daemon(
    path: Path, behave: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], found: str
) -> None:
    """Silence, half an answer and something that is not JSON all are DaemonUnreachable, in time."""
    connections: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(asyncio.current_task())  # type: ignore[arg-type]  # there is one
        try:
            await behave(reader, writer)
        finally:
            writer.close()

    async with await asyncio.start_unix_server(serve, path):
        with pytest.raises(DaemonUnreachable, match=found) as raised:
            await ask(path, "/status", timeout_seconds=0.2 if behave is _silent else 5)
        assert not isinstance(raised.value, DaemonAbsent)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
