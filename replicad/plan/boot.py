"""What to do at boot with a local file and a stored history. Pure.

Decided by epoch, TXID and checksum, never by existence or time. The one file that is thrown away is none: what
cannot be part of the line is kept aside under a new name.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from replicad.position import Position


class Course(Enum):
    """How the local file and the line come together."""

    FIRST = auto()  # nothing is stored: what stands here, now or later, begins the history
    RESTORE = auto()  # nothing stands here: restore the head
    GO_ON = auto()  # the local file is the head, or ahead of it by transactions that can be told apart
    STORE_LOCAL = auto()  # the local file is ahead, but by what cannot be told any more: store its state whole
    FORWARD = auto()  # the local file is an earlier state of the line: restore forward, using what it has
    ASIDE = auto()  # the local file is of another history: keep it aside, restore the head


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """What is known of the local file."""

    proven: bool  # it is a stored head, or its WAL holds all that came after one
    checksum: int
    pages: int
    recorded: Position | None  # by the state file beside it
    same_database: bool  # the state file names the stored database
    all_noted: bool  # nobody else wrote since the state file, and it knows of all that was ever reported durable


def decide(local: Local | None, head: Position | None) -> Course:
    """Return what to do; `local` None: there is no file, `head` None: there is no history."""
    if head is None:
        return Course.FIRST
    if local is None:
        return Course.RESTORE
    if local.proven:
        return Course.GO_ON
    return _unproven(local, head)


def _unproven(local: Local, head: Position) -> Course:
    recorded = local.recorded
    if recorded is None or not local.same_database:
        return Course.ASIDE
    if recorded.txid < head.txid and (local.checksum, local.pages) == (recorded.checksum, recorded.pages):
        return Course.FORWARD  # nothing here that is not stored: a copy of an earlier time, or a disk that lost power
    at_head = (recorded.txid, recorded.checksum) == (head.txid, head.checksum)  # an epoch may begin at its parent's end
    if local.all_noted or at_head:  # whatever is stored came from this file, or was in it before it was written to
        return Course.STORE_LOCAL
    return Course.ASIDE
