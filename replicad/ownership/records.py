"""The small stored documents of ownership: who claimed an epoch, how it starts, how it ended, and who asks for it.

Each stands under the key that `replicad.layout` gives it. Claims, starts and ends are history: written once, never
changed. Requests and answers are notes between two instances: they are written over, and mean nothing afterwards.
"""

from __future__ import annotations

import msgspec

from replicad.document import (
    EpochNumber,
    Hex16,
    Milliseconds,
    Name,
    PageCount,
    TransactionNumber,
    Version,
    decode_document,
    encode_document,
)
from replicad.errors import Damaged
from replicad.position import TXID, Epoch, Position

VERSION = 1
"""The version written in each of these documents, and the newest that is read."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """Who owns an epoch. Whoever created the highest claim is the owner."""

    version: Version = VERSION
    id: Name  # random; a claimant whose answer was lost knows its own claim by it
    epoch: EpochNumber
    claimed_ms: Milliseconds  # by the claimant's clock: for people, never for deciding
    instance: str  # what the claimant calls itself: for people


class EpochStart(msgspec.Struct, frozen=True, kw_only=True):
    """Which transaction an epoch continues from; epoch 0 as the parent means that it continues from nothing."""

    version: Version = VERSION
    database_id: Name
    epoch: EpochNumber
    parent_epoch: int
    parent_txid: TransactionNumber
    checksum: Hex16  # of the state after parent_txid
    pages: PageCount
    started_ms: Milliseconds

    @property
    def position(self) -> Position:
        """The parent's transaction at which this epoch begins."""
        return Position(
            epoch=Epoch(self.parent_epoch),
            txid=TXID(self.parent_txid),
            checksum=int(self.checksum, 16),
            pages=self.pages,
        )


class EpochEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The last transaction of an epoch whose owner stopped in order."""

    version: Version = VERSION
    epoch: EpochNumber
    txid: TransactionNumber
    checksum: Hex16
    pages: PageCount
    ended_ms: Milliseconds

    @property
    def position(self) -> Position:
        """The epoch's final transaction."""
        return Position(
            epoch=Epoch(self.epoch), txid=TXID(self.txid), checksum=int(self.checksum, 16), pages=self.pages
        )


class HandoverRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A newcomer asks the owner of the epoch before `epoch` to end it. That it is there is all that counts."""

    version: Version = VERSION
    id: Name  # of the claims that the newcomer will make
    epoch: EpochNumber
    requested_ms: Milliseconds  # by the newcomer's clock: for people
    instance: str


class HandoverAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The owner of the epoch before `epoch` is alive. Whoever waits for it looks whether the bytes change."""

    version: Version = VERSION
    epoch: EpochNumber
    sign: int  # another one in each answer
    answered_ms: Milliseconds  # by the owner's clock: for people
    instance: str


Record = Claim | EpochStart | EpochEnd | HandoverRequest | HandoverAnswer


def encode_record(record: Record) -> bytes:
    """Return the document as it is stored."""
    return encode_document(record)


def decode_claim(body: bytes, *, what: str) -> Claim:
    """Return the claim in `body`; `what` names the object in messages.

    Raises:
        Damaged: the bytes are not a claim.
        NewerFormat: they are one of a later version.
    """
    return decode_document(body, Claim, version=VERSION, what=what)


def decode_start(body: bytes, *, what: str) -> EpochStart:
    """Return the epoch's start in `body`; `what` names the object in messages.

    Raises:
        Damaged: the bytes are not an epoch's start, or its parent is not an earlier epoch.
        NewerFormat: they are one of a later version.
    """
    start = decode_document(body, EpochStart, version=VERSION, what=what)
    if not 0 <= start.parent_epoch < start.epoch:  # a loop of parents would never end
        expected = f"an epoch before {start.epoch}"
        raise Damaged(what=what, where="parent_epoch", expected=expected, found=start.parent_epoch)
    if start.parent_epoch == 0 and start.parent_txid != 0:
        raise Damaged(what=what, where="parent_txid", expected="0 without a parent", found=start.parent_txid)
    return start


def decode_end(body: bytes, *, what: str) -> EpochEnd:
    """Return the epoch's end in `body`; `what` names the object in messages.

    Raises:
        Damaged: the bytes are not an epoch's end.
        NewerFormat: they are one of a later version.
    """
    return decode_document(body, EpochEnd, version=VERSION, what=what)


def decode_request(body: bytes, *, what: str) -> HandoverRequest:
    """Return the request in `body`; `what` names the object in messages.

    Raises:
        Damaged: the bytes are not a request.
        NewerFormat: they are one of a later version.
    """
    return decode_document(body, HandoverRequest, version=VERSION, what=what)


def decode_answer(body: bytes, *, what: str) -> HandoverAnswer:
    """Return the answer in `body`; `what` names the object in messages.

    Raises:
        Damaged: the bytes are not an answer.
        NewerFormat: they are one of a later version.
    """
    return decode_document(body, HandoverAnswer, version=VERSION, what=what)
