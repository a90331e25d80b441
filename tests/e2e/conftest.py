"""The scene of each end-to-end test, and the bucket behind a network that can fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.fault_proxy import FaultProxy, running_in_thread
from tests.support.fleet import Fleet
from tests.support.moto_server import MotoServer, running_moto
from tests.support.scene import Scene
from tests.support.warm import warm_programs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

QUICK_TO_NOTICE = {"connect_timeout": "1s", "request_timeout": "2s", "retry_timeout": "100ms"}
"""An outage is noticed at once, not after the minute that a real network is given."""


@pytest.fixture(scope="session", autouse=True)
def _warm() -> Iterator[None]:
    with warm_programs():
        yield


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A database, a folder as the bucket, a daemon that is not started yet."""
    with Scene(tmp_path) as found:
        yield found


@pytest.fixture(scope="session")
def moto() -> Iterator[MotoServer]:
    """An S3 server over HTTP."""
    with running_moto() as server:
        yield server


@pytest.fixture
def proxy(moto: MotoServer) -> Iterator[FaultProxy]:
    """The network in front of the S3 server."""
    with running_in_thread(FaultProxy("127.0.0.1", moto.port)) as found:
        yield found


@pytest.fixture
def remote(tmp_path: Path, moto: MotoServer, proxy: FaultProxy) -> Iterator[Scene]:
    """As `scene`, with the bucket in the S3 server behind the proxy."""
    with Scene(tmp_path, server=moto, endpoint=proxy.endpoint, settings=QUICK_TO_NOTICE) as found:
        yield found


@pytest.fixture
def fleet(tmp_path: Path, moto: MotoServer) -> Iterator[Fleet]:
    """Several instances, none started yet, that share a bucket in the S3 server."""
    with Fleet(tmp_path, moto) as found:
        yield found
