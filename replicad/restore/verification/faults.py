"""What is wrong with objects, before it is known what that costs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicad.errors import Damaged, NewerFormat, ObjectMissing
from replicad.layout import ObjectKind
from replicad.restore.verification.request import Fault

if TYPE_CHECKING:
    from replicad.errors import ReplicadError
    from replicad.plan.damage import Stretch

OF_ONE_OBJECT = (Damaged, NewerFormat, ObjectMissing)
"""Errors that are about one object. A later format is among them: a flipped bit can make any version of one."""

MAX_FAULTS = 1_000
"""Faults of which more than their number is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawFault:
    """One object that is not as it should be."""

    key: str
    kind: ObjectKind
    fault: Fault
    problem: str
    gap: Stretch | None = None  # no object, but transactions that no object holds
    whole: bool = False  # it is sound by itself, and contradicts others


def fault_of(key: str, kind: ObjectKind, error: ReplicadError) -> RawFault:
    """Return the fault that an error tells of."""
    missing = isinstance(error, ObjectMissing)
    return RawFault(key=key, kind=kind, fault=Fault.MISSING if missing else Fault.DAMAGED, problem=brief(error))


def brief(error: ReplicadError) -> str:
    """Return what is wrong, without the object's name and the advice."""
    if isinstance(error, ObjectMissing):
        return "it is not in the store"
    if isinstance(error, Damaged):
        found = error.details
        return f"{found['where']}: expected {found['expected']}, found {found['found']}"
    return str(error)


@dataclass(slots=True)
class Faults:
    """Faults by key, the first of each object; a number only for those beyond the limit."""

    by_key: dict[str, RawFault] = field(default_factory=dict)
    left_out: int = 0
    unusable: set[str] = field(default_factory=set)  # segments and manifests, all of them

    def add(self, fault: RawFault) -> None:
        """Take one up."""
        if fault.key in self.by_key:
            return
        if fault.gap is None and fault.kind in {ObjectKind.SEGMENT, ObjectKind.MANIFEST}:
            self.unusable.add(fault.key)
        if len(self.by_key) >= MAX_FAULTS:
            self.left_out += 1
        else:
            self.by_key[fault.key] = fault

    def merge(self, others: Faults) -> None:
        """Take up all of another's."""
        for fault in others.by_key.values():
            self.add(fault)
        self.left_out += others.left_out
        self.unusable |= others.unusable

    def __bool__(self) -> bool:
        return bool(self.by_key)
