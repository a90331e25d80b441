from __future__ import annotations

import os
import socket
import stat
from typing import TYPE_CHECKING

import pytest

from replicad.errors import AlreadyRunning, FileUnusable, UsageError
from replicad.observe.sockets import MAX_PATH_BYTES, PrivateSocket, listen_on_tcp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a socket can stand; short, as the kernel wants it."""
    return tmp_path_factory.mktemp("s") / "r.sock"


@pytest.fixture
def opened(path: Path) -> Iterator[PrivateSocket]:
    """A listening socket."""
    listening = PrivateSocket(path)
    yield listening
    listening.close()


def test_only_the_owner_can_connect(path: Path, opened: PrivateSocket) -> None:
    """The socket has mode 0600, and the umask is as before."""
    assert opened.path == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = os.umask(0o022)
    os.umask(before)
    (path.parent / "file").touch()
    assert stat.S_IMODE((path.parent / "file").stat().st_mode) == 0o666 & ~before


def test_it_is_never_open_to_others(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the moment the name appears it is 0600 already, whatever the umask was.

    Seen to fail with a chmod after bind in place of the umask.
    """
    modes = []

    class Watching(socket.socket):
        def bind(self, address: object) -> None:
            super().bind(address)  # type: ignore[arg-type]  # what it is called with
            modes.append(stat.S_IMODE(path.stat().st_mode))

    monkeypatch.setattr(socket, "socket", Watching)
    before = os.umask(0)
    try:
        PrivateSocket(path).close()
    finally:
        os.umask(before)
    assert modes == [0o600]


def test_a_socket_nobody_listens_on_is_replaced(path: Path) -> None:
    """What a killed daemon left behind does not stop the next one."""
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    assert path.exists()
    PrivateSocket(path).close()
    assert not path.exists()


@pytest.mark.usefixtures("opened")
def test_a_socket_that_lives_is_left_alone(path: Path) -> None:
    """A second daemon is refused, and the first one's socket still answers."""
    with pytest.raises(AlreadyRunning) as raised:
        PrivateSocket(path)
    assert raised.value.exit_code == 11
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_another_file_is_never_removed(path: Path) -> None:
    """A file at the path that is no socket is an error, and stays."""
    path.write_text("mine")
    with pytest.raises(UsageError, match="expected a free path"):
        PrivateSocket(path)
    assert path.read_text() == "mine"


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    """A path beyond what the kernel takes is a usage error that says what to set."""
    path = tmp_path / ("x" * MAX_PATH_BYTES)
    with pytest.raises(UsageError, match=r"at most 107 bytes.*Set control_socket"):
        PrivateSocket(path)


def test_the_longest_path_works(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A path of exactly the limit is taken."""
    folder = tmp_path_factory.mktemp("s")
    path = folder / ("x" * (MAX_PATH_BYTES - len(str(folder)) - 1))
    PrivateSocket(path).close()


def test_a_folder_that_is_missing(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A missing folder is an error that names the path."""
    with pytest.raises(FileUnusable, match=r"No such file"):
        PrivateSocket(tmp_path_factory.mktemp("s") / "no" / "r.sock")


def test_a_successors_socket_is_not_taken_away(path: Path, opened: PrivateSocket) -> None:
    """Closing removes the file only while it is one's own.

    Seen to fail with an unconditional unlink.
    """
    path.unlink()
    successor = PrivateSocket(path)
    opened.close()
    assert path.exists()
    successor.close()
    assert not path.exists()


def _resolves_to(*addresses: tuple[str, int]) -> Callable[..., object]:
    """Return a look-up that knows one name."""
    return lambda *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]


def test_a_name_stands_for_all_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each address of a name is listened on; one that this machine does not have is left out.

    Seen to fail when that was an error: `localhost` is refused on a machine without IPv6. (192.0.2.1 is nobody's.)
    """
    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", _resolves_to(("127.0.0.1", 0), ("192.0.2.1", 0), ("127.0.0.2", 0)))
        listeners = listen_on_tcp("name", 0)
    assert [listener.getsockname()[0] for listener in listeners] == ["127.0.0.1", "127.0.0.2"]
    for listener in listeners:
        socket.create_connection(listener.getsockname(), timeout=10).close()
        listener.close()


def test_a_taken_address_leaves_none_listening(monkeypatch: pytest.MonkeyPatch) -> None:
    """When one address of a name is taken, none of the others is listened on either.

    Seen to fail without the closing.
    """
    with socket.create_server(("127.0.0.2", 0)) as taken:
        with socket.create_server(("127.0.0.1", 0)) as other:
            free = other.getsockname()
        with monkeypatch.context() as patch:
            patch.setattr(socket, "getaddrinfo", _resolves_to(free, taken.getsockname()))
            with pytest.raises(OSError, match="in use"):
                listen_on_tcp("name", 0)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(free, timeout=10)


def test_an_address_of_another_machine() -> None:
    """An address that is none of this machine's is an error."""
    with pytest.raises(OSError, match="assign"):
        listen_on_tcp("192.0.2.1", 0)
