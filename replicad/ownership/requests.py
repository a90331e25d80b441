"""What a protocol asks its driver for.

A protocol is a generator: it yields one of these and is sent the answer, so that the same code is driven by an event
loop in the daemon and by virtual time in the simulation. The driver throws `StoreUnreachable` or `StoreRefused`
into the generator when the store does not answer a request; of what was asked for, anything may then have happened,
also later.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, TypeVar

from replicad.errors import CreateUndecided, StoreRefused, StoreUnreachable

if TYPE_CHECKING:
    from replicad.position import Epoch

AWAY = (StoreUnreachable, StoreRefused)
"""The store does not answer, or does not let us: what it holds is unknown."""

UNSETTLED = (*AWAY, CreateUndecided)
"""The same, or a claim that may or may not have been made."""


class Created(Enum):
    """What became of one attempt to create an object."""

    MADE = auto()  # by this attempt
    TAKEN = auto()  # the key was there (412); after a lost answer perhaps by an earlier attempt of our own
    UNDECIDED = auto()  # 409, a lost answer, a timeout: it may be there, and it may yet appear


# --- of the store ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Get:
    """Read an object; answered with its bytes, or None when it is not there."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Exists:
    """Find out whether an object is there; answered with a bool, and never from a cache."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """Store an object if the key is free, in ONE attempt that nothing below repeats; answered with `Created`."""

    key: str
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """Store an object; answered with None once it is stored. The driver repeats it as it sees fit."""

    key: str
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """List the claims; answered with the highest claimed epoch, 0 when there is none."""


# --- of the machine --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """Answered with monotonic seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NowMs:
    """Answered with the wall clock (Unix ms, UTC): for what people read, never for a decision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Let so much time go by; answered with None."""

    seconds: float


class Happened(Enum):
    """What is worth a log line."""

    CLAIM_MADE = auto()
    CLAIM_LOST = auto()  # another instance has the epoch
    LOST_ANSWER_SETTLED = auto()  # a create without a plain answer was read back
    ASKED = auto()  # a newcomer wrote its request for the epoch
    OWNER_SILENT = auto()  # no sign of life: the epoch is claimed without its owner's leave
    REQUEST_HEARD = auto()  # the owner found the request for the epoch
    PUT_OFF = auto()  # the rest could not be shipped in time: the application goes on, the request stands


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """Tell people; answered with None."""

    happened: Happened
    epoch: Epoch


# --- of the application and its database -----------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Warm:
    """Restore the present head into the local file while its owner goes on; answered with None.

    The owner writes meanwhile, so a listing may look as if it had a gap: the driver gives up then, and may leave this
    out altogether. What counts is listed again behind the claim.
    """

    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """Keep the application's writers out, or stop it; answered with None when nothing can be committed any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShipRest:
    """Store in the own epoch what was committed up to now; answered with the `Position` reached, or None.

    None after so many seconds means that it is not done yet: it goes on, and is asked for again.
    """

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Thaw:
    """Let the application write again; answered with None."""

    ship: bool  # False: into no epoch, until one is owned again; this one may have ended


Request = (
    Get | Exists | Create | Put | Claims | Now | NowMs | Pause | Log  # any side
    | Warm  # newcomers
    | Freeze | ShipRest | Thaw  # owners
)  # fmt: skip

Result = TypeVar("Result")
Steps = Generator[Request, Any, Result]
"""A protocol, or a part of one that is run by `yield from`."""
