from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad import layout
from replicad.layout import ManifestKey, MarkKey, ObjectKind, SegmentKey, epoch_of, kind_of
from replicad.position import TXID, Epoch

if TYPE_CHECKING:
    from collections.abc import Callable

epochs = st.integers(0, 2**32 - 1).map(Epoch)
txids = st.integers(0, 2**64 - 1).map(TXID)
times = st.integers(0, 10**16 - 1)
segment_keys = st.builds(SegmentKey, epoch=epochs, first=txids, last=txids, last_ms=times)
manifest_keys = st.builds(ManifestKey, epoch=epochs, txid=txids, ms=times)
names = st.text("0123456789abcdef", min_size=64, max_size=64)

NAME = "0123456789abcdef" * 4
KEYS = {
    "claims/0000002a.json": ("claim", 42),
    "handover/0000002a.json": ("handover", 42),
    "handover/0000002a.ack.json": ("ack", 42),
    "epochs/0000002a/start.json": ("start", 42),
    "epochs/0000002a/end.json": ("end", 42),
    "epochs/0000002a/log/0000000000000001-00000000000000ff-1700000000000.seg": (
        "segment",
        SegmentKey(epoch=Epoch(42), first=TXID(1), last=TXID(255), last_ms=1_700_000_000_000),
    ),
    "epochs/0000002a/snapshots/00000000000000ff-0.json": (
        "manifest",
        ManifestKey(epoch=Epoch(42), txid=TXID(255), ms=0),
    ),
    f"epochs/0000002a/chunks/{NAME}.zst": ("chunk", (42, NAME)),
    "preserve/00000000000000ff-0000002a-1700000000000.json": (
        "mark",
        MarkKey(txid=TXID(255), epoch=Epoch(42), until_ms=1_700_000_000_000),
    ),
}
PARSERS = {
    "claim": layout.parse_claim,
    "handover": layout.parse_handover,
    "ack": layout.parse_ack,
    "start": layout.parse_start,
    "end": layout.parse_end,
    "segment": layout.parse_segment,
    "manifest": layout.parse_manifest,
    "chunk": layout.parse_chunk,
    "mark": layout.parse_mark,
}


@pytest.mark.parametrize(("key", "kind", "parts"), [(key, *told) for key, told in KEYS.items()])
def test_keys_are_told_apart(key: str, kind: str, parts: object) -> None:
    """Each key has exactly one kind, and is taken apart into what it was made of."""
    found = {name: parse(key) for name, parse in PARSERS.items() if parse(key) is not None}
    assert found == {kind: parts}


@given(epoch=epochs, name=names, segment=segment_keys, manifest=manifest_keys)
def test_round_trip(epoch: Epoch, name: str, segment: SegmentKey, manifest: ManifestKey) -> None:
    """A key that was formatted is parsed into the same parts."""
    assert layout.parse_claim(layout.claim_key(epoch)) == epoch
    assert layout.parse_handover(layout.handover_key(epoch)) == epoch
    assert layout.parse_ack(layout.ack_key(epoch)) == epoch
    assert layout.parse_start(layout.start_key(epoch)) == epoch
    assert layout.parse_end(layout.end_key(epoch)) == epoch
    assert layout.parse_chunk(layout.chunk_key(epoch, name)) == (epoch, name)
    assert layout.parse_segment(str(segment)) == segment
    assert layout.parse_manifest(str(manifest)) == manifest


@given(key=st.from_regex(layout._SEGMENT, fullmatch=True))
def test_segment_keys_have_one_spelling(key: str) -> None:
    """Every key that is parsed as a segment's is formatted back to itself, so that it can be fetched."""
    assert str(layout.parse_segment(key)) == key


@given(key=st.from_regex(layout._MANIFEST, fullmatch=True))
def test_manifest_keys_have_one_spelling(key: str) -> None:
    """Every key that is parsed as a manifest's is formatted back to itself."""
    assert str(layout.parse_manifest(key)) == key


@given(one=segment_keys, other=segment_keys)
def test_order_by_text_is_order_by_number(one: SegmentKey, other: SegmentKey) -> None:
    """A listing, which comes in the order of the text, comes in the order of epoch, first and last TXID."""
    numbers = [(key.epoch, key.first, key.last) for key in (one, other)]
    if numbers[0] != numbers[1]:
        assert (str(one) < str(other)) == (numbers[0] < numbers[1])


@given(epoch=epochs, segment=segment_keys, manifest=manifest_keys, name=names)
def test_prefixes_hold_their_keys(epoch: Epoch, segment: SegmentKey, manifest: ManifestKey, name: str) -> None:
    """A listing below a prefix finds what belongs there, and no other epoch's."""
    assert str(segment).startswith(layout.log_prefix(segment.epoch))
    assert str(manifest).startswith(layout.epoch_prefix(manifest.epoch))
    keys = [layout.start_key(epoch), layout.end_key(epoch), layout.chunk_key(epoch, name), layout.log_prefix(epoch)]
    assert all(key.startswith(layout.epoch_prefix(epoch)) for key in keys)
    assert all(key.startswith(layout.EPOCHS) for key in keys)
    assert layout.claim_key(epoch).startswith(layout.CLAIMS)
    assert all(key(epoch).startswith(layout.HANDOVER) for key in (layout.handover_key, layout.ack_key))
    other = Epoch(epoch ^ 1)
    assert not any(key.startswith(layout.epoch_prefix(other)) for key in keys)


def _variants() -> list[str]:
    """Return keys that are almost right."""
    edits: list[Callable[[str], str]] = [
        lambda key: key.upper(),
        lambda key: "/" + key,
        lambda key: key + "/",
        lambda key: key + "\n",
        lambda key: key + ".tmp",
        lambda key: "app/" + key,
        lambda key: key.replace("0000002a", "2a"),
        lambda key: key.replace("0000002a", "00000002a"),
        lambda key: key.replace("0000002a", "0000002A"),
        lambda key: key.replace("0000002a", "0000002g"),
        lambda key: key.replace("0000002a", "\u0660\u0660\u0660\u0660\u0660\u0660\u06602"),  # other scripts' digits
    ]
    return [variant for key in KEYS for edit in edits if (variant := edit(key)) not in KEYS]


@pytest.mark.parametrize(
    "key",
    [
        *_variants(),
        "",
        "claims/",
        "epochs/0000002a/",
        "epochs/0000002a/log/0000000000000001-00000000000000ff-.seg",
        "epochs/0000002a/log/0000000000000001-00000000000000ff--1.seg",
        "epochs/0000002a/log/0000000000000001-00000000000000ff-00.seg",
        "epochs/0000002a/log/0000000000000001-00000000000000ff-01700000000000.seg",
        f"epochs/0000002a/log/0000000000000001-00000000000000ff-{'9' * 5000}.seg",
        "epochs/0000002a/log/000000000000001-00000000000000ff-1.seg",
        "epochs/0000002a/snapshots/00000000000000ff-1.seg",
        "epochs/0000002a/snapshots/00000000000000ff.json",
        f"epochs/0000002a/chunks/{NAME[1:]}.zst",
        f"epochs/0000002a/chunks/{NAME}",
        "handover/",
        "handover/0000002a",
        "handover/0000002a.nack.json",
        "handover/0000002a.ack",
    ],
    ids=lambda key: key[:90],
)
def test_foreign_keys_are_passed_over(key: str) -> None:
    """A key that is not exactly one of ours is none of ours, and no error."""
    assert not any(parse(key) is not None for parse in PARSERS.values())


@given(key=st.text(max_size=100))
def test_any_key(key: str) -> None:
    """Whatever a bucket holds beside our objects, looking at its key raises nothing."""
    for parse in PARSERS.values():
        parse(key)


def test_kinds_are_told_by_the_key() -> None:
    """Every key that is parsed is of one kind, the keyring of its own, and any other key is foreign."""
    names = {"handover": "note", "ack": "note"}
    for key, (parsed, _) in KEYS.items():
        assert kind_of(key) == names.get(parsed, parsed)
    assert kind_of(layout.KEYRING) is ObjectKind.KEYRING
    assert kind_of("probes/clock") is ObjectKind.PROBE
    for key in ("", "claims/", "probes/notes.txt", "preserve/notes.txt", "epochs/0000002a/README"):
        assert kind_of(key) is ObjectKind.FOREIGN


@given(segment_keys, manifest_keys)
def test_the_epoch_whose_folder_it_is(segment: SegmentKey, manifest: ManifestKey) -> None:
    """A key in an epoch's folder names that epoch; claims, notes and marks lie in none."""
    assert epoch_of(str(segment)) == segment.epoch
    assert epoch_of(str(manifest)) == manifest.epoch
    assert [key for key in KEYS if epoch_of(key) is None] == [key for key in KEYS if not key.startswith("epochs/")]
