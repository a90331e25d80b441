"""A preserve mark's document: why a state is kept, for people. What it keeps, and until when, stands in its key."""

from __future__ import annotations

import msgspec

from replicad.document import EpochNumber, Milliseconds, TransactionNumber, Version, decode_document, encode_document
from replicad.layout import MarkKey
from replicad.position import TXID, Epoch

VERSION = 1
"""The version that is written, and the newest that is read."""


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """One state that retention leaves alone until a date."""

    version: Version = VERSION
    txid: TransactionNumber
    epoch: EpochNumber  # on whose line the transaction is found
    until_ms: Milliseconds
    made_ms: Milliseconds  # by the maker's clock
    reason: str

    @property
    def key(self) -> MarkKey:
        """Where it is stored."""
        return MarkKey(txid=TXID(self.txid), epoch=Epoch(self.epoch), until_ms=self.until_ms)


def encode_mark(mark: Mark) -> bytes:
    """Return the mark as it is stored."""
    return encode_document(mark)


def decode_mark(body: bytes, *, what: str) -> Mark:
    """Return the mark in `body`; `what` names the object in messages.

    Raises:
        Damaged: the bytes are not a mark.
        NewerFormat: they are one of a later version.
    """
    return decode_document(body, Mark, version=VERSION, what=what)
