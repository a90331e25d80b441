"""The history in the model's store, read as a restore reads it, and what must hold of it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.errors import NoBackup, ReplicadError
from replicad.layout import EPOCHS, end_key, start_key
from replicad.ownership.records import decode_end, decode_start
from replicad.plan.line import History, Line, line_of_history
from replicad.plan.listing import read_listing
from replicad.position import TXID, Epoch, Position

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class Violation(AssertionError):
    """The protocol broke a promise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """The transactions on the line of history, TXID 1 first, and the epoch at its head (0: nothing is stored)."""

    head: Epoch
    transactions: tuple[int, ...]


def position_of(epoch: Epoch, transactions: Sequence[int]) -> Position:
    """Return the position behind these transactions; equal checksums mean equal transactions."""
    checksum = zlib.crc32(repr(tuple(transactions)).encode())
    return Position(epoch=epoch, txid=TXID(len(transactions)), checksum=checksum, pages=len(transactions))


def encode_segment(transactions: Iterable[int]) -> bytes:
    """Return the body of a model segment: the transactions' numbers, each of which is given out once."""
    return ",".join(map(str, transactions)).encode()


def read_content(objects: Mapping[str, bytes], keys: Iterable[str]) -> Content:
    """Return what the line through the listed keys holds.

    Raises:
        Violation: there is a gap in it, or two contents for one TXID, or no line at all.
    """
    listing = read_listing((key, 1) for key in keys if key.startswith(EPOCHS))
    head = max(listing.starts, default=None)
    history = History(
        label="the model",
        listing=listing,
        starts={epoch: decode_start(objects[start_key(epoch)], what="start") for epoch in listing.starts},
        ends={epoch: decode_end(objects[end_key(epoch)], what="end") for epoch in listing.ends & {head}},
    )
    try:
        line = line_of_history(history)
    except NoBackup:
        return Content(head=Epoch(0), transactions=())
    except ReplicadError as error:
        raise Violation(f"the history cannot be read: {error}") from error
    return Content(head=line.head, transactions=_transactions(objects, line))


def _transactions(objects: Mapping[str, bytes], line: Line) -> tuple[int, ...]:
    found: list[int] = []
    for part in line.segments:
        for txid, transaction in enumerate(map(int, objects[part.name].split(b",")), part.first):
            if txid > part.until:
                break
            if txid > len(found) + 1:
                raise Violation(f"the line has a gap before TXID {txid}, in {part.name}")
            if txid == len(found) + 1:
                found.append(transaction)
            elif found[txid - 1] != transaction:
                raise Violation(f"TXID {txid} is both {found[txid - 1]} and {transaction} on one line")
    if line.last_txid > len(found):
        raise Violation(f"TXID {line.last_txid} is told of, the line ends at {len(found)}")
    return tuple(found)


class Reported:
    """What was reported durable, by TXID: a promise for ever."""

    def __init__(self) -> None:
        self.transactions: dict[int, int] = {}
        self._accepted_at: dict[int, float] = {}  # when the application committed them

    def add(self, txid: int, transaction: int, accepted_at: float) -> None:
        """Note one report.

        Raises:
            Violation: the TXID was reported with another content.
        """
        known = self.transactions.setdefault(txid, transaction)
        if known != transaction:
            raise Violation(f"I1: TXID {txid} was reported as {known} and as {transaction}")
        self._accepted_at[txid] = accepted_at

    def check_on(self, transactions: Sequence[int], due: Iterable[int], rule: str) -> None:
        """Compare a line with what was reported under the `due` TXIDs.

        Raises:
            Violation: something reported is not on it.
        """
        for txid in due:
            found = transactions[txid - 1] if txid <= len(transactions) else None
            if found != self.transactions[txid]:
                raise Violation(f"{rule}: TXID {txid} was reported as {self.transactions[txid]}, the line has {found}")

    def check_order(self) -> None:
        """Compare the order of the line with the order of the commits.

        Raises:
            Violation: two applications accepted, in the same stretch of time, writes that were both reported.
        """
        latest = 0.0
        for txid in sorted(self._accepted_at):
            if self._accepted_at[txid] < latest:
                raise Violation(f"I4: TXID {txid} was committed before the one in front of it: two applications wrote")
            latest = self._accepted_at[txid]
