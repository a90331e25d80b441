"""What is asked of a verification, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from replicad.restore.request import Limits

if TYPE_CHECKING:
    from pathlib import Path

    from replicad.plan.damage import Stretch
    from replicad.plan.line import Line
    from replicad.position import TXID, Epoch
    from replicad.restore.drill import DrillReport
    from replicad.restore.verification.cursor import Cursor


class Level(StrEnum):
    """How far a verification looks; each one lists as well."""

    LISTING = "listing"
    BODIES = "bodies"
    DRILL = "drill"


class State(StrEnum):
    """What a replica is found to be, best first."""

    OK = "OK"
    NOT_YET_UPLOADED = "NOT YET UPLOADED"
    DAMAGED = "DAMAGED"
    LOST = "LOST"

    @property
    def is_sound(self) -> bool:
        """Whether all that is stored is as it should be."""
        return self in {State.OK, State.NOT_YET_UPLOADED}


class Fault(StrEnum):
    """What is wrong with an object."""

    MISSING = "missing"
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much of the bodies is read in one run; None: no limit. Whichever limit comes first counts."""

    share: float | None = None  # of all stored bytes, above 0 up to 1
    bytes: int | None = None
    seconds: float | None = None

    @property
    def is_limited(self) -> bool:
        """Whether a run may end before everything was read."""
        return self != Budget()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """What an owner has reported durable, in an epoch of its own."""

    database_id: str
    epoch: Epoch
    txid: TXID


@dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """What a local database holds that the store does not; as far as it is known, the rest None."""

    transactions: int | None = None
    bytes: int | None = None

    def __bool__(self) -> bool:
        return bool(self.transactions or self.bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exercise:
    """A full restore for the sake of it."""

    folder: Path  # where the temporary folder is made
    name: str  # of the database: part of that folder's name
    assertions: tuple[str, ...] = ()
    assertion_timeout_seconds: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyRequest:
    """One verification of one database."""

    level: Level
    budget: Budget = field(default_factory=Budget)
    cursor: Cursor | None = None  # where an earlier run stopped
    promised_ms: int | None = None  # from when on every instant was promised (Unix ms); None: from the first on
    reported: Reported | None = None  # before this verification began
    mirrored: Reported | None = None  # likewise, but in the replica of which this store is a mirror: it may lag
    ahead: Ahead | None = None  # None: it cannot be told
    exercise: Exercise | None = None  # for `Level.DRILL`
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One object that is not as it should be, or a stretch of the log of which no object is left."""

    key: str  # a folder, with a slash at its end, where the name of the object cannot be known
    kind: str
    fault: Fault
    problem: str
    served: Stretch | None  # the transactions that it is for; None: no single ones
    lost: tuple[Stretch, ...]  # those of them that cannot be restored by another way

    @property
    def has_other_way(self) -> bool:
        """Whether whatever it is for can be restored without it."""
        return not self.lost


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """How much was looked at."""

    objects: int = 0  # listed
    stored_bytes: int = 0
    bodies: int = 0  # fetched and checked, beside what the listing needs
    body_bytes: int = 0
    requests: int = 0  # GETs
    fetched_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What was found of one database."""

    state: State
    level: Level
    line: Line | None  # None: it cannot be followed, because of what the findings name
    findings: tuple[Finding, ...]
    findings_left_out: int  # beside those: no more is kept of them than their number
    lost: tuple[Stretch, ...]  # because of all findings together
    ahead: Ahead | None
    looked: Looked
    cursor: Cursor | None  # where the next run goes on; None: every body was read in this pass
    drill: DrillReport | None

    @property
    def is_sound(self) -> bool:
        """Whether all that is stored is as it should be, and a drill, if there was one, passed."""
        return self.state.is_sound and (self.drill is None or self.drill.passed)
