"""Tell the outside that replicad is ready: by a file, and over the service manager's socket; each only if asked for."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import structlog

from replicad.host.files import atomic_write, remove
from replicad.observe import events

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_log = structlog.get_logger(__name__)

_MANAGERS_OWN = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")


class ReadyFile:
    """A file that exists while replicad is ready. Blocks: call it in a thread.

    Args:
        path: where, in a folder that exists; None for no file.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def create(self) -> None:
        """Create it, at once with its content: our process id.

        Raises:
            FileUnusable: it cannot be written.
            NoSpace: the disk is full.
        """
        if self._path is not None:
            atomic_write(self._path, f"{os.getpid()}\n".encode(), mode=0o644, durable=False)

    def remove(self) -> None:
        """Remove it: at the stop, and at the start in case a killed predecessor left it. Safe to repeat.

        Raises:
            FileUnusable: it is there and cannot be removed.
        """
        if self._path is not None:
            remove(self._path)


class ServiceManager:
    """The notification protocol of sd_notify(3): datagrams to the socket that NOTIFY_SOCKET names.

    A manager that cannot be reached is logged once and otherwise ignored: it must not stop replication.

    Args:
        environment: where NOTIFY_SOCKET and the watchdog's interval stand.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        self._failure_logged = False
        self.watchdog_seconds = _watchdog_seconds(environment)

    def ready(self, status: str) -> None:
        """Say that start-up is over."""
        self._send("READY=1", f"STATUS={status}")

    def status(self, status: str) -> None:
        """Say in one line what is going on; shown by `systemctl status`."""
        self._send(f"STATUS={status}")

    def alive(self) -> None:
        """Answer the watchdog; due every `watchdog_seconds`, best twice as often, when that is not None."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """Say that the end has begun."""
        self._send("STOPPING=1")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        # an @ stands for the NUL byte of Linux's abstract namespace
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        message = "\n".join(line.replace("\n", " ") for line in lines).encode()
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.settimeout(0)
                channel.sendto(message, address)
        except OSError as error:
            if not self._failure_logged:
                self._failure_logged = True
                _log.warning(events.NOTIFY_FAILED, socket=self._address, error=error.strerror or repr(error))


def environment_for_child(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without the service manager's variables: an application must not say READY for us."""
    return {name: value for name, value in environment.items() if name not in _MANAGERS_OWN}


def _watchdog_seconds(environment: Mapping[str, str]) -> float | None:
    microseconds = environment.get("WATCHDOG_USEC", "")
    meant_for = environment.get("WATCHDOG_PID", "") or str(os.getpid())
    if not microseconds.isdecimal() or int(microseconds) == 0 or meant_for != str(os.getpid()):
        return None
    return int(microseconds) / 1e6
