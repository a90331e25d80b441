"""The names of stored objects: format and parse, nothing else.

Keys are relative to `<prefix>/<database>/`. Epochs, TXIDs and commit times stand in the keys, so that a
restore plan is a function of a listing alone. Hexadecimal is fixed-width lower case: order by text is
order by number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from replicad.position import TXID, Epoch

CLAIMS = "claims/"
EPOCHS = "epochs/"
HANDOVER = "handover/"
"""Notes between two owners; no part of the history."""

KEYRING = f"{CLAIMS}keyring"
"""Says that the replica is encrypted, and how: among the claims, because every reader and owner lists those."""

PRESERVE = "preserve/"
"""Marks that keep single states from retention."""

PROBES = "probes/"
"""What a look at the store's abilities or its clock stores for a moment; what a crash leaves may go at any time."""

_EPOCH = r"(?P<epoch>[0-9a-f]{8})"
_MS = r"(?:0|[1-9][0-9]{0,15})"  # one spelling only: a key that is parsed and formatted again is the same key
_FOLDER = re.compile(rf"epochs/{_EPOCH}/")
_CLAIM = re.compile(rf"claims/{_EPOCH}\.json")
_HANDOVER = re.compile(rf"handover/{_EPOCH}\.json")
_ACK = re.compile(rf"handover/{_EPOCH}\.ack\.json")
_START = re.compile(rf"epochs/{_EPOCH}/start\.json")
_END = re.compile(rf"epochs/{_EPOCH}/end\.json")
_SEGMENT = re.compile(
    rf"epochs/{_EPOCH}/log/(?P<first>[0-9a-f]{{16}})-(?P<last>[0-9a-f]{{16}})-(?P<ms>{_MS})\.(?:seg|(?P<level>[1-9])\.segs)"
)
_MANIFEST = re.compile(rf"epochs/{_EPOCH}/snapshots/(?P<txid>[0-9a-f]{{16}})-(?P<ms>{_MS})\.json")
_MARK = re.compile(rf"preserve/(?P<txid>[0-9a-f]{{16}})-{_EPOCH}-(?P<until>{_MS})\.json")
_PROBE = re.compile(r"probes/(?:clock|(?:doctor-)?[0-9a-f]{16,32})")
_CHUNK = re.compile(rf"epochs/{_EPOCH}/chunks/(?P<name>[0-9a-f]{{64}})\.zst")


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentKey:
    """The key of a segment, or of a roll-up of segments, taken apart.

    `last_ms` is the commit time of its last transaction (Unix ms, UTC).
    """

    epoch: Epoch
    first: TXID
    last: TXID
    last_ms: int
    level: int = 0  # 0: a segment; from 1 on a roll-up, made of objects of the level below

    def __str__(self) -> str:
        suffix = f"{self.level}.segs" if self.level else "seg"
        return f"{log_begin(self.epoch, self.first)}-{self.last:016x}-{self.last_ms}.{suffix}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestKey:
    """A snapshot manifest's key taken apart; `ms` is the commit time of its transaction (Unix ms, UTC)."""

    epoch: Epoch
    txid: TXID
    ms: int

    def __str__(self) -> str:
        return f"{snapshots_prefix(self.epoch)}{self.txid:016x}-{self.ms}.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkKey:
    """A preserve mark's key taken apart: the state after `txid` on the line of `epoch`, kept until `until_ms`."""

    txid: TXID
    epoch: Epoch
    until_ms: int  # Unix ms, UTC

    def __str__(self) -> str:
        return f"{PRESERVE}{self.txid:016x}-{self.epoch:08x}-{self.until_ms}.json"


def epoch_prefix(epoch: Epoch) -> str:
    """Return the folder that holds all that the epoch's owner writes."""
    return f"{EPOCHS}{epoch:08x}/"


def log_prefix(epoch: Epoch) -> str:
    """Return the folder of the epoch's segments and roll-ups."""
    return f"{epoch_prefix(epoch)}log/"


def log_begin(epoch: Epoch, first: TXID) -> str:
    """Return the lowest key, in order of bytes, of what begins with a transaction in the epoch's log."""
    return f"{log_prefix(epoch)}{first:016x}"


def snapshots_prefix(epoch: Epoch) -> str:
    """Return the folder of the epoch's snapshot manifests."""
    return f"{epoch_prefix(epoch)}snapshots/"


def claim_key(epoch: Epoch) -> str:
    """Return the key whose creation makes an instance the owner of the epoch."""
    return f"{CLAIMS}{epoch:08x}.json"


def handover_key(epoch: Epoch) -> str:
    """Return the key under which a newcomer asks for the epoch; the owner of the one before looks there."""
    return f"{HANDOVER}{epoch:08x}.json"


def ack_key(epoch: Epoch) -> str:
    """Return the key under which the owner of the epoch before says that it is alive, and heard."""
    return f"{HANDOVER}{epoch:08x}.ack.json"


def start_key(epoch: Epoch) -> str:
    """Return the key that says which transaction the epoch continues from."""
    return f"{epoch_prefix(epoch)}start.json"


def end_key(epoch: Epoch) -> str:
    """Return the key that says the epoch ended cleanly."""
    return f"{epoch_prefix(epoch)}end.json"


def chunks_prefix(epoch: Epoch) -> str:
    """Return the folder of the chunks that were first stored in the epoch."""
    return f"{epoch_prefix(epoch)}chunks/"


def chunk_key(epoch: Epoch, name: str) -> str:
    """Return the key of a snapshot chunk; `name` is as `replicad.snapshot.naming` has it."""
    return f"{chunks_prefix(epoch)}{name}.zst"


def parse_claim(key: str) -> Epoch | None:
    """Return the epoch a claim key names, or None for any other key."""
    return _epoch(_CLAIM, key)


def parse_handover(key: str) -> Epoch | None:
    """Return the epoch that a request is for, or None for any other key."""
    return _epoch(_HANDOVER, key)


def parse_ack(key: str) -> Epoch | None:
    """Return the epoch that an answer is about, or None for any other key."""
    return _epoch(_ACK, key)


def parse_start(key: str) -> Epoch | None:
    """Return the epoch a start key names, or None for any other key."""
    return _epoch(_START, key)


def parse_end(key: str) -> Epoch | None:
    """Return the epoch an end key names, or None for any other key."""
    return _epoch(_END, key)


def parse_segment(key: str) -> SegmentKey | None:
    """Return the key of a segment or of a roll-up taken apart, or None for any other key."""
    match = _SEGMENT.fullmatch(key)
    if match is None:
        return None
    return SegmentKey(
        epoch=Epoch(int(match["epoch"], 16)),
        first=TXID(int(match["first"], 16)),
        last=TXID(int(match["last"], 16)),
        last_ms=int(match["ms"]),
        level=int(match["level"] or 0),
    )


def parse_manifest(key: str) -> ManifestKey | None:
    """Return a snapshot manifest's key taken apart, or None for any other key."""
    match = _MANIFEST.fullmatch(key)
    if match is None:
        return None
    return ManifestKey(epoch=Epoch(int(match["epoch"], 16)), txid=TXID(int(match["txid"], 16)), ms=int(match["ms"]))


def parse_mark(key: str) -> MarkKey | None:
    """Return a preserve mark's key taken apart, or None for any other key."""
    match = _MARK.fullmatch(key)
    if match is None:
        return None
    return MarkKey(
        txid=TXID(int(match["txid"], 16)), epoch=Epoch(int(match["epoch"], 16)), until_ms=int(match["until"])
    )


def parse_chunk(key: str) -> tuple[Epoch, str] | None:
    """Return (epoch, name) of a chunk key, or None for any other key."""
    match = _CHUNK.fullmatch(key)
    return None if match is None else (Epoch(int(match["epoch"], 16)), match["name"])


class ObjectKind(StrEnum):
    """What a key says that an object is."""

    CLAIM = "claim"
    KEYRING = "keyring"
    START = "start"
    END = "end"
    SEGMENT = "segment"  # roll-ups too
    MANIFEST = "manifest"
    CHUNK = "chunk"
    MARK = "mark"
    NOTE = "note"  # of a handover: written over, and no part of the history
    PROBE = "probe"  # of the store's abilities or its clock, for a moment; no part of the history either
    FOREIGN = "foreign"  # none of replicad's


_KINDS = (
    (_SEGMENT, ObjectKind.SEGMENT),
    (_CHUNK, ObjectKind.CHUNK),
    (_MANIFEST, ObjectKind.MANIFEST),
    (_CLAIM, ObjectKind.CLAIM),
    (_START, ObjectKind.START),
    (_END, ObjectKind.END),
    (_MARK, ObjectKind.MARK),
    (_HANDOVER, ObjectKind.NOTE),
    (_ACK, ObjectKind.NOTE),
    (_PROBE, ObjectKind.PROBE),
)


def kind_of(key: str) -> ObjectKind:
    """Return what a key says that its object is."""
    if key == KEYRING:
        return ObjectKind.KEYRING
    return next((kind for pattern, kind in _KINDS if pattern.fullmatch(key)), ObjectKind.FOREIGN)


def epoch_of(key: str) -> Epoch | None:
    """Return the epoch whose folder a key lies in, or None for a key that lies in none."""
    match = _FOLDER.match(key)
    return None if match is None else Epoch(int(match["epoch"], 16))


def _epoch(pattern: re.Pattern[str], key: str) -> Epoch | None:
    match = pattern.fullmatch(key)
    return None if match is None else Epoch(int(match["epoch"], 16))
