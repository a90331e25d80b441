"""What a listing of keys says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.layout import ManifestKey, SegmentKey, ack_key, chunk_key, claim_key, end_key, handover_key, start_key
from replicad.plan.listing import read_listing
from replicad.position import TXID, Epoch

NAME = "ab" * 32


def test_each_kind_of_object_is_found() -> None:
    """Every kind of key that replicad writes is recognised, with its size."""
    segment = SegmentKey(epoch=Epoch(2), first=TXID(3), last=TXID(9), last_ms=1234)
    manifest = ManifestKey(epoch=Epoch(2), txid=TXID(9), ms=1234)
    keys = [str(segment), str(manifest), claim_key(Epoch(3)), start_key(Epoch(2)), end_key(Epoch(1))]
    listing = read_listing(
        [
            *((key, 10) for key in keys),
            (chunk_key(Epoch(1), NAME), 7),
            (handover_key(Epoch(4)), 5),
            (ack_key(Epoch(4)), 5),
        ]
    )
    assert [(found.key, found.size_bytes, found.name) for found in listing.segments] == [(segment, 10, str(segment))]
    assert [(found.key, found.size_bytes, found.name) for found in listing.manifests] == [(manifest, 10, str(manifest))]
    assert [sorted(found) for found in (listing.claims, listing.starts, listing.ends)] == [[3], [2], [1]]
    assert (listing.chunks, listing.foreign) == (1, 0)
    assert listing.epochs == {1, 2}


@pytest.mark.parametrize(
    "key",
    [
        "README.txt",
        "",
        "epochs/00000001/log/0000000000000001-0000000000000001-1000.seg.tmp",
        "epochs/00000001/log/000000000000000A-000000000000000A-1000.seg",
        "epochs/00000001/log/0000000000000009-0000000000000003-1000.seg",
        "epochs/00000001/log/0000000000000000-0000000000000003-1000.seg",
        "epochs/00000001/log/0000000000000001-0000000000000001-0001000.seg",
        "epochs/00000000/log/0000000000000001-0000000000000001-1000.seg",
        "epochs/00000000/snapshots/0000000000000001-1000.json",
        "epochs/00000001/snapshots/0000000000000001-01000.json",
        "epochs/00000000/start.json",
        "claims/00000000.json",
        "claims/00000001.json.bak",
        "handover/00000004.txt",
    ],
)
def test_foreign_keys_are_counted_and_left_alone(key: str) -> None:
    """A key that replicad would not write is neither believed nor an error, only counted."""
    listing = read_listing([(key, 1)])
    assert listing.foreign == 1
    assert not listing.epochs
    assert not listing.claims


@given(st.lists(st.tuples(st.text(max_size=90), st.integers(min_value=0))))
def test_no_key_can_break_the_listing(objects: list[tuple[str, int]]) -> None:
    """Whatever lies in the bucket, a listing of it is read."""
    listing = read_listing(objects)
    counted = len(listing.segments) + len(listing.manifests) + listing.chunks + listing.foreign
    assert counted <= len({key for key, _ in objects})


def test_an_object_listed_twice_counts_once() -> None:
    """Two LISTs that overlap, or one repeated while objects were added, name each object once."""
    key = str(SegmentKey(epoch=Epoch(1), first=TXID(1), last=TXID(1), last_ms=1))
    assert len(read_listing([(key, 5), (key, 5)]).segments) == 1
