"""Restores from a real S3 server, with all that can go wrong on the way."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import pytest

from replicad.errors import StoreUnreachable
from replicad.plan.target import AtTXID
from replicad.position import TXID
from replicad.restore.request import Integrity, RestoreRequest
from replicad.restore.restore import restore
from replicad.restore.together import gather_bounded
from replicad.store.open import StoreOptions, open_store
from replicad.store.prefixed import PrefixedStore
from tests.support.fault_proxy import Answer, Cut, FaultProxy, Rule
from tests.support.moto_server import CREDENTIALS, MotoServer, running_moto
from tests.support.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from replicad.store.protocol import ObjectStore

PATIENT = StoreOptions(
    access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
    secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    read_timeout_seconds=2.0,
    first_wait_seconds=0.01,
    max_wait_seconds=0.1,
)


@pytest.fixture(scope="module")
def moto() -> Iterator[MotoServer]:
    """Return an S3 server."""
    with running_moto() as server:
        yield server


async def stored(recorder: Recorder, store: ObjectStore) -> None:
    """Store a history with a large segment, small ones and a snapshot."""
    recorder.fill(5_000)
    recorder.fill(10)
    recorder.commit("DELETE FROM t WHERE id > 4000")
    recorder.commit("VACUUM")
    recorder.fill(20)
    await recorder.start(store)
    await recorder.snapshot(store, 2, chunk_pages=64)
    await recorder.segment(store, 3)
    await recorder.segment(store, 4, 5)
    await recorder.segment(store, 6)


async def test_through_an_unreliable_network(moto: MotoServer, tmp_path: Path) -> None:
    """TRAP: 503, 429, dropped streams mid-body and answers that never come are tried again; the file is exact."""
    async with FaultProxy("127.0.0.1", moto.port, seed=7) as proxy:
        url = moto.new_bucket_url("app", endpoint=proxy.endpoint)
        store = PrefixedStore(await open_store(url, PATIENT), "app.db/", shared=False)
        try:
            with Recorder(path=tmp_path / "source.db") as recorder:
                await stored(recorder, store)
                proxy.rules += [
                    Rule(method="GET", cut=Cut.HANG, times=1, skip=5),
                    Rule(method="GET", cut=Cut.BODY, probability=0.15),
                    Rule(method="GET", cut=Cut.BEFORE, probability=0.1),
                    Rule(method="GET", answer=Answer(status=503), probability=0.1),
                    Rule(method="GET", answer=Answer(status=429), probability=0.05),
                ]
                for number in (2, 4, 6):
                    request = RestoreRequest(
                        path=tmp_path / "out", target=AtTXID(TXID(number)), force=True, integrity=Integrity.FULL
                    )
                    await restore(store, request)
                    assert (tmp_path / "out").read_bytes() == recorder.transactions[number].database
        finally:
            await store.close()
        assert sum(rule.matched for rule in proxy.rules) > 20, "something went wrong indeed"


async def test_a_store_that_goes_away_leaves_nothing(moto: MotoServer, tmp_path: Path) -> None:
    """A store that cannot be reached any more is its own error, and there is no half-made file."""
    hasty = StoreOptions(
        access_key_id=PATIENT.access_key_id, secret_access_key=PATIENT.secret_access_key, attempts=2, retry_seconds=0.1
    )
    async with FaultProxy("127.0.0.1", moto.port) as proxy:
        store = await open_store(moto.new_bucket_url("app", endpoint=proxy.endpoint), hasty)
        try:
            with Recorder(path=tmp_path / "source.db") as recorder:
                await stored(recorder, store)
            proxy.rules.append(Rule(method="GET", path="chunks/", cut=Cut.BEFORE))
            target = tmp_path / "t" / "out"
            with pytest.raises(StoreUnreachable):
                await restore(store, RestoreRequest(path=target, target=AtTXID(TXID(3))))
            assert list(target.parent.iterdir()) == []
        finally:
            await store.close()


async def test_two_databases_whose_names_begin_alike(moto: MotoServer, tmp_path: Path) -> None:
    """TRAP: prefixes that are prefixes of others (`app` and `app2`) are not mixed."""
    store = await open_store(moto.new_bucket_url("x"), PATIENT)
    try:
        sources = {}
        for name in ("app", "app2"):
            with Recorder(path=tmp_path / f"{name}.source") as recorder:
                recorder.fill(10 if name == "app" else 30)
                part = PrefixedStore(store, f"{name}/")
                await recorder.start(part)
                await recorder.snapshot(part, 1)
                await recorder.segment(part, 2)
                sources[name] = recorder.transactions[2].database
        await asyncio.gather(
            *(restore(PrefixedStore(store, f"{name}/"), RestoreRequest(path=tmp_path / name)) for name in sources)
        )
        assert {name: (tmp_path / name).read_bytes() for name in sources} == sources
    finally:
        await store.close()


@pytest.mark.parametrize("name", ["my app.db", "a+b&c=d?.db", "100%25.db", "zoë's “app”.db", "data/2025#1/app.db"])
async def test_a_name_that_needs_escaping(moto: MotoServer, tmp_path: Path, name: str) -> None:
    """TRAP: keys that need escaping: a database of any name is stored, listed and restored under that name.

    Seen to fail with the prefix of a listing quoted twice: an empty listing, "no backup".
    """
    store = await open_store(moto.new_bucket_url("some where/ü"), PATIENT)
    try:
        part = PrefixedStore(store, f"{name}/")
        with Recorder(path=tmp_path / "source") as recorder:
            await stored(recorder, part)
            await restore(part, RestoreRequest(path=tmp_path / "out", integrity=Integrity.FULL))
            assert (tmp_path / "out").read_bytes() == recorder.transactions[6].database
        folders = {row.key.partition("/")[0] async for row in part.list("")}
        assert folders == {"epochs"}
    finally:
        await store.close()


async def test_a_history_of_more_objects_than_a_listing_has_rows(moto: MotoServer, tmp_path: Path) -> None:
    """TRAP: LIST answers with 1 000 keys at most: a history of more is restored to its newest transaction.

    Seen to fail with the first page taken for all of it.
    """
    store = await open_store(moto.new_bucket_url("x"), PATIENT)
    try:
        with Recorder(path=tmp_path / "source") as recorder:
            await recorder.start(store)
            await recorder.snapshot(store, 1)
            for number in range(1_050):
                recorder.commit(f"INSERT INTO t (body) VALUES ({number})")
            await gather_bounded(
                [partial(recorder.segment, store, txid) for txid in range(2, recorder.newest + 1)], limit=16
            )
            restored = await restore(store, RestoreRequest(path=tmp_path / "out"))
            assert restored.txid == recorder.newest
            assert (tmp_path / "out").read_bytes() == recorder.transactions[recorder.newest].database
    finally:
        await store.close()
