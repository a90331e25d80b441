"""Conditional creates over a network that loses answers, against a real server behind a proxy."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from replicad.errors import ConditionalWritesUnsupported, CreateUndecided, StoreRefused
from replicad.store.create import create_settled, probe_conditional_writes
from tests.support.fault_proxy import Answer, Cut, Rule
from tests.unit.store.conftest import ONCE

if TYPE_CHECKING:
    from tests.support.fault_proxy import FaultProxy
    from tests.unit.store.conftest import OpenS3

HASTY = dataclasses.replace(ONCE, connect_timeout_seconds=0.4, read_timeout_seconds=0.4)
MINE = b'{"id": "mine"}'


async def test_trap_resent_create_is_refused_for_its_own_success(s3: OpenS3, proxy: FaultProxy) -> None:
    """A create whose answer is lost is sent once, is undecided, and is found to be one's own by reading it back.

    Seen to fail: without `_retry_connection = False` in `SingleRequestSession` the proxy sees two PUTs, and the
    second is answered 412.
    """
    async with s3() as store:
        await store.put("warm", b"aiohttp resends on a connection that has been used before")
        proxy.rules.append(Rule(method="PUT", path="claims/1", cut=Cut.ANSWER, times=1))
        with pytest.raises(CreateUndecided, match="claims/1"):
            await store.create("claims/1", MINE)
        assert proxy.count("PUT", "claims/1") == 1
        assert await create_settled(store, "claims/1", MINE, is_mine=MINE.__eq__)


async def test_trap_lost_answer_settled_by_reading_back(s3: OpenS3, proxy: FaultProxy) -> None:
    """The settle step needs one PUT and one GET when the answer is lost, and knows another's object from one's own.

    Seen to fail: with `create_settled` creating again instead of reading back, the count of PUTs is 2.
    """
    proxy.rules.append(Rule(method="PUT", path="claims/", cut=Cut.ANSWER))
    async with s3() as store:
        assert await create_settled(store, "claims/1", MINE, is_mine=MINE.__eq__)
        assert [(seen.method, seen.path.rpartition("/")[2]) for seen in proxy.seen] == [("PUT", "1"), ("GET", "1")]
        assert not await create_settled(store, "claims/1", b"another", is_mine=b"another".__eq__)


async def test_trap_timed_out_create_that_lands_later(s3: OpenS3, proxy: FaultProxy) -> None:
    """A create without an answer in time is undecided; when it has landed meanwhile, it is one's own.

    Seen to fail: with ReadTimeoutError left out of what counts as undecided, StoreUnreachable is raised.
    """
    proxy.rules.append(Rule(method="PUT", path="claims/1", cut=Cut.HANG, times=1))
    async with s3(HASTY) as store:
        with pytest.raises(CreateUndecided):
            await store.create("claims/1", MINE)
        assert await create_settled(store, "claims/1", MINE, is_mine=MINE.__eq__)


async def test_create_that_never_arrived(s3: OpenS3, proxy: FaultProxy) -> None:
    """A create that was lost on its way is made again with the same body, once the key was seen to be free."""
    proxy.rules.append(Rule(method="PUT", path="claims/1", cut=Cut.BEFORE, times=2))
    async with s3() as store:
        assert await create_settled(store, "claims/1", MINE, is_mine=MINE.__eq__)
        assert await store.get("claims/1") == MINE
    assert proxy.count("PUT") == 3


async def test_trap_409_means_undecided(s3: OpenS3, proxy: FaultProxy) -> None:
    """A 409 on a create is neither yes nor no; the settle step finds the key free and creates it.

    Seen to fail: with 409 taken for ObjectExists, `create` raises that instead of CreateUndecided.
    """
    conflict = Rule(method="PUT", answer=Answer(status=409, code="ConditionalRequestConflict"), times=2)
    proxy.rules.append(conflict)
    async with s3() as store:
        with pytest.raises(CreateUndecided, match="ConditionalRequestConflict"):
            await store.create("claims/1", MINE)
        assert await create_settled(store, "claims/1", MINE, is_mine=MINE.__eq__)


async def test_create_never_settled(s3: OpenS3, proxy: FaultProxy) -> None:
    """A create that stays open is given up after so many attempts, as undecided."""
    proxy.rules.append(Rule(method="PUT", cut=Cut.BEFORE))
    async with s3() as store:
        with pytest.raises(CreateUndecided, match="not there afterwards"):
            await create_settled(store, "claims/1", MINE, is_mine=MINE.__eq__, attempts=3, max_wait_seconds=0.001)
    assert proxy.count("PUT") == 3


async def test_store_without_conditional_writes(s3: OpenS3, proxy: FaultProxy) -> None:
    """A store that answers 501 to If-None-Match (as B2 does) is told apart from one that forbids writing."""
    proxy.rules.append(Rule(method="PUT", header="If-None-Match", answer=Answer(status=501, code="NotImplemented")))
    async with s3() as store:
        with pytest.raises(ConditionalWritesUnsupported):
            await store.create("claims/1", MINE)
        assert not await probe_conditional_writes(store)


async def test_probe_of_a_store_that_forbids_writing(s3: OpenS3, proxy: FaultProxy) -> None:
    """A probe that may not write is an error, not a verdict on conditional writes."""
    proxy.rules.append(Rule(method="PUT", answer=Answer(status=403, code="AccessDenied")))
    async with s3() as store:
        with pytest.raises(StoreRefused, match="AccessDenied"):
            await probe_conditional_writes(store)


async def test_trap_probe_over_lost_answers(s3: OpenS3, proxy: FaultProxy) -> None:
    """The probe reaches the right verdict although answers to both its creates are lost.

    Seen to fail: with a probe that calls `create` once each, it raises CreateUndecided.
    """
    proxy.rules.append(Rule(method="PUT", cut=Cut.ANSWER, times=3))
    async with s3() as store:
        assert await probe_conditional_writes(store)
    assert proxy.count("PUT") == 4


async def test_trap_conditions_are_never_etags(s3: OpenS3, proxy: FaultProxy) -> None:
    """The only condition ever sent is `If-None-Match: *`, so quoted and unquoted ETags cannot matter.

    Seen to fail: with `IfMatch` added to a put.
    """
    async with s3() as store:
        await store.put("a", b"1")
        await store.create("b", b"2")
        await store.get("a", start=0, stop=1)
        await store.delete(["a", "b"])
    heads = [seen.head.lower() for seen in proxy.seen]
    assert not [head for head in heads if "if-match" in head]
    assert [head.count("if-none-match: *\r\n") for head in heads] == [0, 1, 0, 0]


async def test_trap_redirects_are_not_followed(s3: OpenS3, proxy: FaultProxy) -> None:
    """A create that is redirected is not sent to where the answer points.

    Seen to fail: with `allow_redirects` left to aiohttp, the object appears under the other key.
    """
    moved = Answer(status=307, headers={"Location": f"{proxy.endpoint}/elsewhere/key"})
    proxy.rules.append(Rule(method="PUT", path="claims/1", answer=moved))
    async with s3() as store:
        with pytest.raises(StoreRefused):
            await store.create("claims/1", MINE)
    assert proxy.count(path="elsewhere") == 0
