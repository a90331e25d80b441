from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from replicad.errors import StoreRefused, UsageError
from replicad.store.open import StoreOptions, open_store
from tests.support.fault_proxy import Answer, Rule
from tests.unit.store.conftest import ONCE, Notes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fault_proxy import FaultProxy
    from tests.support.moto_server import MotoServer


def test_import_is_light() -> None:
    """Importing the module that opens stores, and opening a folder, does not import aiobotocore or aiohttp.

    Seen to fail: with `from replicad.store.s3 import open_s3` at the top of the module.
    """
    program = (
        "import asyncio, sys, replicad.store.open as o; asyncio.run(o.open_store('file:///tmp/nothing'));"
        "print([name for name in sys.modules if name.split('.')[0] in ('aiobotocore', 'botocore', 'aiohttp')])"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


async def test_memory_by_name() -> None:
    """The same name is the same store, another name another."""
    one, same, other = [await open_store(f"memory://{name}") for name in ("test-open-1", "test-open-1", "test-open-2")]
    await one.put("a", b"1")
    assert await same.get("a") == b"1"
    assert [row.key async for row in other.list("")] == []


async def test_folder_is_observed(tmp_path: Path) -> None:
    """A folder's operations are told to the observer."""
    notes = Notes()
    store = await open_store(f"file://{tmp_path}/store", observer=notes)
    await store.put("a", b"12")
    assert [row.key async for row in store.list("")] == ["a"]
    await store.close()
    assert notes.requests == [("put", "ok", 2, 0), ("list", "ok", 0, 0)]


async def test_s3_with_a_prefix(moto: MotoServer, proxy: FaultProxy) -> None:
    """The prefix of the URL stands before every key, and the store's name for messages has it and no secret."""
    notes = Notes()
    url = moto.new_bucket_url("my%20apps/app", endpoint=proxy.endpoint)
    store = await open_store(url, ONCE, observer=notes)
    await store.put("a", b"1")
    assert proxy.seen[0].path.endswith("/my%20apps/app/a")
    assert [row.key async for row in store.list("")] == ["a"]
    assert store.url == url.partition("&region")[0]
    await store.close()
    assert [request[:2] for request in notes.requests] == [("put", "ok"), ("list", "ok")]


async def test_faults_are_retried(moto: MotoServer, proxy: FaultProxy) -> None:
    """An opened store tries again by the options' policy, and observes every attempt."""
    notes = Notes()
    trying = StoreOptions(
        access_key_id=ONCE.access_key_id,
        secret_access_key=ONCE.secret_access_key,
        attempts=3,
        first_wait_seconds=0.001,
    )
    store = await open_store(moto.new_bucket_url(endpoint=proxy.endpoint), trying, observer=notes)
    proxy.rules.append(Rule(answer=Answer(status=503), times=2))
    await store.put("a", b"1")
    await store.close()
    assert [request[1] for request in notes.requests] == ["unreachable", "unreachable", "ok"]


async def test_no_credentials(moto: MotoServer) -> None:
    """An S3 store without credentials is refused when it is opened, with what to set; nothing is left open."""
    with pytest.raises(StoreRefused, match="AWS_ACCESS_KEY_ID"):
        await open_store(moto.new_bucket_url())


async def test_wrong_url() -> None:
    """A URL that names no store is a UsageError."""
    with pytest.raises(UsageError):
        await open_store("ftp://host/path")
