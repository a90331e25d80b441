"""Listening sockets: on TCP, and a Unix socket that its owner alone can reach, from the first moment on."""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import TYPE_CHECKING

from replicad.errors import AlreadyRunning, FileUnusable, UsageError

if TYPE_CHECKING:
    from pathlib import Path

MAX_PATH_BYTES = 107
"""sun_path of Linux has 108 bytes, the last one a zero (unix(7))."""

_PROBE_SECONDS = 1.0
_ABSENT = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)  # as `localhost` by IPv6, where there is none


def listen_on_tcp(host: str, port: int) -> list[socket.socket]:
    """Return a listening socket for each address that a host name stands for; port 0 is any free one.

    Raises:
        OSError: it stands for none of this machine's addresses, or one is taken; nothing listens then.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listeners: list[socket.socket] = []
    absent: OSError | None = None
    try:
        for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
            try:
                listeners.append(_listen(family, address))
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise
                absent = error
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    if absent is not None and not listeners:
        raise absent
    return listeners


def _listen(family: socket.AddressFamily, address: tuple[object, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.settimeout(0)
        # Else a restart has to wait until the connections of its predecessor are forgotten.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 has a socket of its own
        listener.bind(address)
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def check_path(path: Path) -> None:
    """Raise UsageError when the kernel cannot take a socket's path, for it is too long."""
    length_bytes = len(os.fsencode(path))
    if length_bytes > MAX_PATH_BYTES:
        raise UsageError(
            where="control_socket",
            expected=f"a path of at most {MAX_PATH_BYTES} bytes",
            found=f"{length_bytes} bytes ({path})",
            hint="Set control_socket to a shorter path, such as /run/replicad.sock or /tmp/replicad.sock.",
        )


class PrivateSocket:
    """A listening Unix socket with mode 0600, in place of one that nobody listens on any more.

    Raises:
        AlreadyRunning: somebody listens there.
        UsageError: the path is too long, or something that is no socket stands there.
        FileUnusable: the folder is missing or read-only.
    """

    def __init__(self, path: Path) -> None:
        check_path(path)
        _make_way(path)
        self.path = path
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.settimeout(0)
        # The umask, not a chmod afterwards: between bind and chmod anybody could connect. It belongs to the whole
        # process, but files that other threads create in these microseconds only come out narrower.
        before = os.umask(0o177)
        try:
            self.listener.bind(os.fspath(path))
            self.listener.listen()
        except OSError as error:
            self.listener.close()
            hint = "Check that the folder exists and is writable, or set control_socket."
            raise FileUnusable(path=path, operation="created", found=error.strerror, hint=hint) from error
        finally:
            os.umask(before)
        self._inode = path.lstat().st_ino

    def close(self) -> None:
        """Close the socket and take its file away, if the file is still this one and not a successor's."""
        self.listener.close()
        try:
            if self.path.lstat().st_ino == self._inode:
                self.path.unlink()
        except OSError:
            return  # gone already, or the folder is read-only now: the next start replaces it


def _make_way(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise FileUnusable(
            path=path, operation="looked at", found=error.strerror, hint="Set control_socket."
        ) from error
    if not stat.S_ISSOCK(mode):
        hint = "Remove it, or set control_socket to another path."
        raise UsageError(where="control_socket", expected="a free path", found=f"a file at {path}", hint=hint)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_SECONDS)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except FileNotFoundError:
            return
        except OSError as error:  # a full backlog, or no permission: it lives
            raise AlreadyRunning(path=path, found=f"a listener ({error.strerror or error})") from error
    raise AlreadyRunning(path=path, found="a running replicad that answers there")
