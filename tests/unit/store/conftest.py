"""An S3 server, a proxy that breaks things in front of it, and an environment without anybody's credentials."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest

from replicad.store.metered import OUTCOMES
from replicad.store.open import StoreOptions
from replicad.store.s3 import S3Store, open_s3
from replicad.store.url import S3Location
from tests.support.fault_proxy import FaultProxy
from tests.support.moto_server import CREDENTIALS, REGION, MotoServer, running_moto

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractAsyncContextManager

    from replicad.store.metered import RequestObserver

    OpenS3 = Callable[..., AbstractAsyncContextManager[S3Store]]

ONCE = StoreOptions(
    access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
    secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    attempts=1,
    part_bytes=5 << 20,
)
"""One attempt each, so that a test sees every fault."""


class Notes:
    """An observer that writes down (verb, outcome, sent bytes, received bytes) of each request."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, int, int]] = []

    def request(self, verb: str, outcome: str, seconds: float, sent_bytes: int, received_bytes: int) -> None:
        """Take note of a request."""
        assert outcome in OUTCOMES
        assert seconds >= 0
        self.requests.append((verb, outcome, sent_bytes, received_bytes))


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="session")
def moto() -> Iterator[MotoServer]:
    """A moto server for the whole run; each test takes a bucket of its own."""
    with running_moto() as server:
        yield server


@pytest.fixture
async def proxy(moto: MotoServer) -> AsyncIterator[FaultProxy]:
    """A proxy in front of the moto server, without rules."""
    async with FaultProxy("127.0.0.1", moto.port) as running:
        yield running


@pytest.fixture
def bucket(moto: MotoServer) -> str:
    """A new bucket's name."""
    return moto.new_bucket()


@pytest.fixture
def s3(proxy: FaultProxy, bucket: str) -> OpenS3:
    """Give a function that opens the bucket through the proxy; it is used as a context."""

    @contextlib.asynccontextmanager
    async def opened(
        options: StoreOptions = ONCE, *, observer: RequestObserver | None = None, **location: str
    ) -> AsyncIterator[S3Store]:
        where = S3Location(**{"bucket": bucket, "endpoint": proxy.endpoint, "region": REGION} | location)  # type: ignore[arg-type]
        store = await open_s3(where, options, observer)
        try:
            yield store
        finally:
            await store.close()

    return opened
