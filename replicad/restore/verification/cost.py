"""What the faults that are believed cost: per object, and all of them together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.layout import ObjectKind
from replicad.plan.damage import Stretch, lost_without, served_by
from replicad.restore.verification.request import Fault, Finding, State

if TYPE_CHECKING:
    from replicad.plan.line import Line
    from replicad.restore.verification.faults import Faults, RawFault
    from replicad.restore.verification.listing import Look


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The findings, what is lost because of all of them, and the state that makes; None: nothing is wrong."""

    state: State | None
    findings: tuple[Finding, ...]
    lost: tuple[Stretch, ...]


def assess(look: Look, faults: Faults) -> Cost:
    """Return what the faults cost on the line that the look has found."""
    if not faults:
        return Cost(state=None, findings=(), lost=())
    line = look.line
    findings = tuple(_finding(look, line, fault) for fault in faults.by_key.values())
    missing = [fault for fault in faults.by_key.values() if fault.fault is Fault.MISSING]
    if line is None:
        return Cost(state=State.LOST if missing else State.DAMAGED, findings=findings, lost=())
    gaps = [fault.gap for fault in missing if fault.gap is not None]
    gone = {name for fault in missing for name in _unusable(look, fault)}
    unusable = faults.unusable | {name for fault in faults.by_key.values() for name in _unusable(look, fault)}
    lost = sorted((*gaps, *lost_without(line, unusable)), key=lambda stretch: stretch.first)
    state = State.LOST if gaps or lost_without(line, gone) else State.DAMAGED
    return Cost(state=state, findings=findings, lost=tuple(lost))


def _unusable(look: Look, fault: RawFault) -> list[str]:
    """Return the segments and manifests that cannot be used because of a fault."""
    if fault.gap is not None:
        return []
    if fault.kind is ObjectKind.CHUNK:
        return look.users.get(fault.key, [])
    return [fault.key] if fault.kind in {ObjectKind.SEGMENT, ObjectKind.MANIFEST} else []


def _finding(look: Look, line: Line | None, fault: RawFault) -> Finding:
    served: Stretch | None = None
    lost: tuple[Stretch, ...] = ()
    if fault.gap is not None:
        served, lost = fault.gap, (fault.gap,)
    elif line is not None:
        unusable = set(_unusable(look, fault))
        served = _served(line, unusable)
        lost = lost_without(line, unusable)
    return Finding(key=fault.key, kind=fault.kind, fault=fault.fault, problem=fault.problem, served=served, lost=lost)


def _served(line: Line, names: set[str]) -> Stretch | None:
    """Return from the first to the last transaction that these segments and manifests are for; None: none."""
    stretches = [served_by(line, found) for found in line.manifests if found.name in names]
    stretches += [
        Stretch(first=part.first, last=part.until, last_ms=part.until_ms)
        for part in line.segments
        if part.name in names
    ]
    if not stretches:
        return None
    first, last = min(stretches, key=lambda one: one.first), max(stretches, key=lambda one: one.last)
    return Stretch(first=first.first, last=last.last, first_ms=first.first_ms, last_ms=last.last_ms)
