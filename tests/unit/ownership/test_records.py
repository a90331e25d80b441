from __future__ import annotations

import json
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.errors import Damaged, NewerFormat
from replicad.ownership.records import (
    Claim,
    EpochEnd,
    EpochStart,
    HandoverAnswer,
    HandoverRequest,
    Record,
    decode_answer,
    decode_claim,
    decode_end,
    decode_request,
    decode_start,
    encode_record,
)
from replicad.position import TXID, Epoch, Position

CLAIM = Claim(id="c0ffee", epoch=3, claimed_ms=1_700_000_000_000, instance="web-1")
START = EpochStart(
    database_id="0f1e2d3c",
    epoch=3,
    parent_epoch=2,
    parent_txid=4711,
    checksum="00000000000000ff",
    pages=9,
    started_ms=1_700_000_000_000,
)
END = EpochEnd(epoch=3, txid=4800, checksum="ffffffffffffffff", pages=10, ended_ms=1_700_000_000_001)
REQUEST = HandoverRequest(id="c0ffee", epoch=4, requested_ms=1_700_000_000_002, instance="web-2")
ANSWER = HandoverAnswer(epoch=4, sign=7, answered_ms=1_700_000_000_003, instance="web-1")

READERS = [
    pytest.param(CLAIM, decode_claim, id="claim"),
    pytest.param(START, decode_start, id="start"),
    pytest.param(END, decode_end, id="end"),
    pytest.param(REQUEST, decode_request, id="request"),
    pytest.param(ANSWER, decode_answer, id="answer"),
]
Reader = Callable[..., Record]

times = st.integers(0, 2**53 - 1)
epochs = st.integers(1, 2**32 - 1)
txids = st.integers(0, 2**63 - 1)
pages = st.integers(0, 2**32 - 2)
checksums = st.integers(0, 2**64 - 1).map("{:016x}".format)
names = st.text(min_size=1, max_size=256)


@given(st.builds(Claim, id=names, epoch=epochs, claimed_ms=times, instance=st.text()))
def test_claims_come_back(claim: Claim) -> None:
    """A claim read is the claim written."""
    assert decode_claim(encode_record(claim), what="claim") == claim


@given(
    st.builds(
        EpochStart,
        database_id=names,
        epoch=st.integers(2, 2**32 - 1),
        parent_epoch=st.just(1),
        parent_txid=txids,
        checksum=checksums,
        pages=pages,
        started_ms=times,
    )
)
def test_starts_come_back(start: EpochStart) -> None:
    """An epoch's start read is the one written, and tells the position it continues from."""
    assert decode_start(encode_record(start), what="start") == start
    assert start.position == Position(
        epoch=Epoch(1), txid=TXID(start.parent_txid), checksum=int(start.checksum, 16), pages=start.pages
    )


@given(st.builds(EpochEnd, epoch=epochs, txid=txids, checksum=checksums, pages=pages, ended_ms=times))
def test_ends_come_back(end: EpochEnd) -> None:
    """An epoch's end read is the one written, and tells its final position."""
    assert decode_end(encode_record(end), what="end") == end
    assert end.position == Position(
        epoch=Epoch(end.epoch), txid=TXID(end.txid), checksum=int(end.checksum, 16), pages=end.pages
    )


@given(
    st.builds(HandoverRequest, id=names, epoch=epochs, requested_ms=times, instance=st.text()),
    st.builds(HandoverAnswer, epoch=epochs, sign=st.integers(0, 2**53), answered_ms=times, instance=st.text()),
)
def test_notes_come_back(request: HandoverRequest, answer: HandoverAnswer) -> None:
    """A request and an answer read are those written."""
    assert decode_request(encode_record(request), what="request") == request
    assert decode_answer(encode_record(answer), what="answer") == answer


def test_stored_form() -> None:
    """What is stored is one line of JSON with the version in front."""
    assert encode_record(CLAIM) == (
        b'{"version":1,"id":"c0ffee","epoch":3,"claimed_ms":1700000000000,"instance":"web-1"}\n'
    )


@pytest.mark.parametrize(("record", "read"), READERS)
def test_newer_version(record: Record, read: Reader) -> None:
    """A document of a later version is not called damaged, whatever else is in it."""
    body = json.dumps(json.loads(encode_record(record)) | {"version": 2, "epoch": "three"}).encode()
    with pytest.raises(NewerFormat, match="x was written in format version 2, and this replicad reads up to version 1"):
        read(body, what="x")


@pytest.mark.parametrize(("record", "read"), READERS)
def test_zero_bytes_and_truncated(record: Record, read: Reader) -> None:
    """A document cut short anywhere, down to zero bytes, is damaged."""
    body = encode_record(record)
    for size in range(len(body) - 1):  # the last byte is a newline
        with pytest.raises(Damaged, match="x is damaged: JSON"):
            read(body[:size], what="x")


@pytest.mark.parametrize(("record", "read"), READERS)
def test_missing_fields(record: Record, read: Reader) -> None:
    """A document without one of its fields, the version among them, is damaged."""
    whole = json.loads(encode_record(record))
    for name in whole:
        with pytest.raises(Damaged, match=f"missing required field `{name}`"):
            read(json.dumps({key: value for key, value in whole.items() if key != name}).encode(), what="x")


@pytest.mark.parametrize(("record", "read"), READERS)
def test_unknown_fields_are_passed_over(record: Record, read: Reader) -> None:
    """A document with a field of a later writer, which old readers may miss, is read."""
    assert read(json.dumps(json.loads(encode_record(record)) | {"zone": ["a"]}).encode(), what="x") == record


@pytest.mark.parametrize(
    ("record", "lie", "where"),
    [
        (CLAIM, {"version": 0}, r"\$\.version"),
        (CLAIM, {"id": ""}, r"\$\.id"),
        (CLAIM, {"epoch": 0}, r"\$\.epoch"),
        (CLAIM, {"epoch": 2**32}, r"\$\.epoch"),
        (CLAIM, {"claimed_ms": -1}, r"\$\.claimed_ms"),
        (CLAIM, {"instance": None}, r"\$\.instance"),
        (START, {"parent_epoch": 3}, "parent_epoch: expected an epoch before 3, found 3"),
        (START, {"parent_epoch": -1}, "parent_epoch: expected an epoch before 3, found -1"),
        (START, {"parent_epoch": 0}, "parent_txid: expected 0 without a parent, found 4711"),
        (START, {"checksum": "00000000000000ff\n"}, r"\$\.checksum"),
        (START, {"parent_txid": 2**63}, r"\$\.parent_txid"),
        (END, {"txid": 1.5}, r"\$\.txid"),
        (END, {"pages": 2**32 - 1}, r"\$\.pages"),
        (END, {"checksum": 255}, r"\$\.checksum"),
        (REQUEST, {"id": ""}, r"\$\.id"),
        (ANSWER, {"epoch": 0}, r"\$\.epoch"),
    ],
    ids=str,
)
def test_lies(record: Record, lie: dict[str, object], where: str) -> None:
    """A document with an impossible value is damaged, and the message says where.

    A start that names itself, or a later epoch, as its parent would make a line of history without an end.
    """
    read = next(param.values[1] for param in READERS if type(param.values[0]) is type(record))
    assert callable(read)
    with pytest.raises(Damaged, match=where):
        read(json.dumps(json.loads(encode_record(record)) | lie).encode(), what="x")


def test_first_start() -> None:
    """The first epoch continues from nothing."""
    first = msgspec.structs.replace(START, epoch=1, parent_epoch=0, parent_txid=0, checksum="0" * 16, pages=0)
    assert decode_start(encode_record(first), what="x").position == Position(
        epoch=Epoch(0), txid=TXID(0), checksum=0, pages=0
    )


@given(body=st.binary(max_size=300))
def test_random_bytes(body: bytes) -> None:
    """Bytes that are no document are damaged, never another error."""
    for read in (decode_claim, decode_start, decode_end, decode_request, decode_answer):
        with pytest.raises(Damaged):
            read(body, what="x")
