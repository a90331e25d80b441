"""Whether neighbours agree on the state between them: segments, snapshots, and the starts and ends of epochs.

Objects come in the order of their keys: of each epoch its end, its segments by transaction, its snapshots, its start.
What is kept is one segment's index, and the states at transactions that another document speaks of.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from replicad.errors import Damaged
from replicad.position import TXID, Epoch, Position
from replicad.restore.segments import State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from replicad.restore.verification.cursor import Cursor
    from replicad.restore.verification.listing import Look
    from replicad.restore.verify_object import LogPart, Verified


class Succession:
    """The states that were read so far.

    Args:
        look: what is known from the listing.
        cursor: where an earlier run stopped.
    """

    def __init__(self, look: Look, cursor: Cursor | None) -> None:
        starts = [start.position for start in look.starts.values() if start.parent_epoch]
        ends = [end.position for end in look.ends.values()]
        self._told = {(one.epoch, one.txid): _state(one) for one in (*starts, *ends)}
        manifests = look.line.manifests if look.line is not None else ()
        self._wanted: dict[Epoch, list[TXID]] = {}
        for epoch, txid in sorted({(found.key.epoch, found.key.txid) for found in manifests} | self._told.keys()):
            self._wanted.setdefault(epoch, []).append(txid)
        self._found: dict[tuple[Epoch, TXID], State] = {}
        self._before: dict[Epoch, tuple[TXID, State]] = {}
        for epoch, start in look.starts.items():
            self._before[epoch] = TXID(start.parent_txid), _state(start.position)
        self._newest: LogPart | None = None  # of those that reach furthest
        self.last: Position | None = None  # where the segment read last ended
        if cursor is not None and cursor.epoch:
            state = State(int(cursor.checksum, 16), cursor.pages)
            self._before[Epoch(cursor.epoch)] = TXID(cursor.txid), state

    def take(self, verified: Verified) -> None:
        """Hold a sound object against its neighbours.

        Raises:
            Damaged: they contradict one another; which of them is wrong cannot be told from this.
        """
        if verified.log is not None:
            self._take_log(verified.key, verified.log)
        elif verified.manifest is not None:
            position = verified.manifest.position
            self._compare(verified.key, position.epoch, position.txid, _state(position))

    def _take_log(self, name: str, part: LogPart) -> None:
        key, newest = part.key, self._newest
        before = TXID(key.first - 1)
        known: State | None = None
        if newest is not None and newest.key.epoch == key.epoch:
            known = newest.at(before)
        elif key.epoch in self._before and self._before[key.epoch][0] == before:
            known = self._before[key.epoch][1]
        if newest is None or newest.key.epoch != key.epoch or newest.key.last < key.last:
            self._newest = part
        if (end := part.at(key.last)) is not None:
            self.last = Position(epoch=key.epoch, txid=key.last, checksum=end.checksum, pages=end.pages)
        if known is not None:
            _must_agree(name, before, known, part.at(before))
        for txid in self._within(key.epoch, before, key.last):
            if (state := part.at(txid)) is not None:
                self._compare(name, key.epoch, txid, state)
                self._found[key.epoch, txid] = state

    def _within(self, epoch: Epoch, first: TXID, last: TXID) -> Iterable[TXID]:
        wanted = self._wanted.get(epoch, [])
        return wanted[bisect_right(wanted, first) : bisect_right(wanted, last)]

    def _compare(self, name: str, epoch: Epoch, txid: TXID, state: State) -> None:
        for known in (self._told.get((epoch, txid)), self._found.get((epoch, txid))):
            if known is not None:
                _must_agree(name, txid, known, state)


def _state(position: Position) -> State:
    return State(position.checksum, position.pages)


def _must_agree(name: str, txid: TXID, expected: State, found: State | None) -> None:
    if found is not None and expected != found:
        raise Damaged(
            what=name,
            where=f"state after TXID {txid}, which another object tells of",
            expected=f"checksum {expected.checksum:016x}, {expected.pages} pages",
            found=f"checksum {found.checksum:016x}, {found.pages} pages",
        )
