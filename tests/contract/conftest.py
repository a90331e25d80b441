"""The stores that the contract suite runs over; every test gets an empty one."""

from __future__ import annotations

import dataclasses
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from replicad.encryption.keys import EncryptionKey
from replicad.store.directory import DirectoryStore
from replicad.store.encrypted import EncryptedStore
from replicad.store.memory import MemoryStore
from replicad.store.open import StoreOptions, open_store
from tests.support import rclone_server, versitygw_server
from tests.support.google_server import GoogleServer, running_google
from tests.support.moto_server import CREDENTIALS, REGION, MotoServer, running_moto
from tests.support.rclone_server import RcloneServer, running_rclone, why_no_rclone
from tests.support.versitygw_server import VersitygwServer, running_versitygw, why_no_versitygw

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from replicad.store.protocol import ObjectStore

STORES = (
    "memory",
    "directory",
    "moto-path",
    "moto-virtual",
    "google",
    "rclone",
    "versitygw",
    "direct-moto",
    "direct-versitygw",
    "encrypted-memory",
    "encrypted-directory",
    "encrypted-moto-path",
    "encrypted-direct-moto",
)
ENCRYPTED = "encrypted-"
"""What the name of a kind begins with that has the wrapper around another kind."""

LIARS = frozenset({"rclone"})
"""Stores that answer a conditional write with yes whatever is there."""

PATIENCE = StoreOptions(
    access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
    secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    part_bytes=5 << 20,
    attempts=1,
)


@pytest.fixture(scope="session")
def moto() -> Iterator[MotoServer]:
    """A moto server for the whole run; each test takes a bucket of its own."""
    with running_moto() as server:
        yield server


@pytest.fixture(scope="session")
def google(moto: MotoServer) -> Iterator[GoogleServer]:
    """What speaks like Google Cloud Storage, in front of moto."""
    with running_google(moto.port) as server:
        yield server


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RcloneServer | None]:
    """An rclone server for the whole run, or None where there is no rclone."""
    if why_no_rclone() is not None:
        yield None
        return
    with running_rclone(tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.fixture(scope="session")
def versitygw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VersitygwServer | None]:
    """A versitygw server for the whole run, or None where it cannot be built."""
    if why_no_versitygw() is not None:
        yield None
        return
    with running_versitygw(tmp_path_factory.mktemp("versitygw")) as server:
        yield server


@pytest.fixture
def _localhost_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every name below localhost mean this machine, as RFC 6761 has it and not every resolver knows."""
    look_up = socket.getaddrinfo

    def getaddrinfo(host: str, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the socket module's types
        return look_up("127.0.0.1" if str(host).endswith(".localhost") else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.fixture(params=STORES)
def kind(request: pytest.FixtureRequest) -> str:
    """Which store this run of the test is about."""
    return str(request.param)


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """The servers of this run."""

    moto: MotoServer
    google: GoogleServer
    rclone: RcloneServer | None
    versitygw: VersitygwServer | None


@pytest.fixture(scope="session")
def servers(
    moto: MotoServer, google: GoogleServer, rclone: RcloneServer | None, versitygw: VersitygwServer | None
) -> Servers:
    """All servers, up before the first test that needs one."""
    return Servers(moto=moto, google=google, rclone=rclone, versitygw=versitygw)


@pytest.fixture
async def store(kind: str, servers: Servers, tmp_path: Path, _localhost_names: None) -> AsyncIterator[ObjectStore]:
    """An empty store of the kind, with nothing retried above it."""
    found = await _open(kind.removeprefix(ENCRYPTED), servers, tmp_path)
    if kind.startswith(ENCRYPTED):
        found = EncryptedStore(found, [EncryptionKey(bytes(range(32)))])
    yield found
    await found.close()


async def _open(kind: str, servers: Servers, tmp_path: Path) -> ObjectStore:  # noqa: PLR0911 - one for each kind
    moto = servers.moto
    match kind:
        case "memory":
            return MemoryStore()
        case "directory":
            return DirectoryStore(tmp_path / "store")
        case "moto-path":
            return await open_store(moto.new_bucket_url(), PATIENCE)
        case "moto-virtual" | "google":
            query = f"endpoint=http://s3.localhost:{moto.port}&region={REGION}&path_style=false"
            if kind == "google":
                query = f"endpoint={servers.google.endpoint}&region=auto&creates=generation-match"
            return await open_store(f"s3://{moto.new_bucket()}?{query}", PATIENCE)
        case "rclone":
            return await _open_rclone(servers.rclone)
        case "versitygw":
            return await _open_versitygw(servers.versitygw)
        case "direct-moto":
            return await open_store(moto.new_bucket_url(), PATIENCE, only_to_read=True)
        case "direct-versitygw":
            return await _open_versitygw(servers.versitygw, only_to_read=True)
    raise AssertionError(kind)


async def _open_rclone(server: RcloneServer | None) -> ObjectStore:
    if server is None:
        pytest.skip(str(why_no_rclone()))
    credentials = dataclasses.replace(
        PATIENCE,
        attempts=5,  # it answers 500 now and then while it makes folders
        access_key_id=rclone_server.ACCESS_KEY_ID,
        secret_access_key=rclone_server.SECRET_ACCESS_KEY,
    )
    return await open_store(server.new_bucket_url(), credentials)


async def _open_versitygw(server: VersitygwServer | None, *, only_to_read: bool = False) -> ObjectStore:
    if server is None:
        pytest.skip(str(why_no_versitygw()))
    credentials = dataclasses.replace(
        PATIENCE,
        access_key_id=versitygw_server.ACCESS_KEY_ID,
        secret_access_key=versitygw_server.SECRET_ACCESS_KEY,
    )
    return await open_store(server.new_bucket_url(), credentials, only_to_read=only_to_read)
