from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest
import structlog.testing

from replicad.errors import FileUnusable
from replicad.host.notify import ReadyFile, ServiceManager, environment_for_child

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("abstract", [False, True])
def test_messages_to_the_service_manager(tmp_path: Path, abstract: bool) -> None:  # noqa: FBT001 - a parameter
    """Each call is one datagram of sd_notify(3)'s lines, on a socket with a path or an abstract one."""
    name = f"replicad-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(10)
        listening.bind("\0" + name if abstract else name)
        manager = ServiceManager({"NOTIFY_SOCKET": "@" + name if abstract else name})
        manager.ready("2 databases\nat 3 s")
        manager.status("restoring")
        manager.alive()
        manager.stopping()
        received = [listening.recv(4096).decode() for _ in range(4)]
    assert received == ["READY=1\nSTATUS=2 databases at 3 s", "STATUS=restoring", "WATCHDOG=1", "STOPPING=1"]


def test_no_service_manager(tmp_path: Path) -> None:
    """Without NOTIFY_SOCKET nothing is sent; a socket that is gone is logged once and never an error."""
    with structlog.testing.capture_logs() as logs:
        ServiceManager({}).ready("ready")
        assert logs == []
        manager = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")})
        manager.ready("ready")
        manager.stopping()
    assert [(line["event"], line["error"]) for line in logs] == [("notify_failed", "No such file or directory")]


def test_full_socket_does_not_block(tmp_path: Path) -> None:
    """A manager that does not read cannot hold replicad up."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        manager = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        with structlog.testing.capture_logs() as logs:
            for _ in range(2_000):
                manager.alive()
    assert [line["event"] for line in logs] == ["notify_failed"]


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "2500000"}, 2.5),
        ({"WATCHDOG_USEC": "2500000", "WATCHDOG_PID": str(os.getpid())}, 2.5),
        ({"WATCHDOG_USEC": "2500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_watchdog_interval(environment: dict[str, str], seconds: float | None) -> None:
    """The watchdog is answered when the manager asked for it, and asked this process."""
    assert ServiceManager(environment).watchdog_seconds == seconds


def test_environment_for_child() -> None:
    """The application does not inherit the socket on which it could say READY in replicad's name."""
    environment = {"NOTIFY_SOCKET": "/run/s", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "PATH": "/bin"}
    assert environment_for_child(environment) == {"PATH": "/bin"}


def test_ready_file(tmp_path: Path) -> None:
    """The ready file is there between create and remove, and readable to other users' probes."""
    path = tmp_path / "ready"
    ready = ReadyFile(path)
    ready.remove()
    ready.create()
    assert path.read_text() == f"{os.getpid()}\n"
    assert path.stat().st_mode & 0o777 == 0o644
    ready.remove()
    assert list(tmp_path.iterdir()) == []
    ReadyFile(None).create()
    ReadyFile(None).remove()
    with pytest.raises(FileUnusable):
        ReadyFile(tmp_path / "missing" / "ready").create()
