"""What a look by retention found, as plain values for people and programs."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from typing import TYPE_CHECKING

from replicad.replicate.status import instant

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from replicad.plan.retention import Verdict
    from replicad.replicate.pruning import Examined


def as_json(examined: Examined, *, limit: int) -> Mapping[str, object]:
    """Return what goes and what stays, by kind and reason, and at most `limit` single objects of each (0: all)."""
    plan = examined.plan
    return {
        "window_begin": instant(plan.window_begin_ms),
        "first_restorable_at": instant(plan.first_restorable_ms),
        "next_at": instant(plan.next_ms),
        "clock_difference_seconds": examined.clock_difference_seconds,
        "delete": _sums(plan.deleted),
        "keep": _sums(plan.kept),
        "deleted_objects": [asdict(verdict) for verdict in plan.deleted[: limit or None]],
        "kept_objects": [asdict(verdict) for verdict in plan.kept[: limit or None]],
    }


def _sums(verdicts: Iterable[Verdict]) -> list[Mapping[str, object]]:
    objects: defaultdict[tuple[str, str], int] = defaultdict(int)
    sizes: defaultdict[tuple[str, str], int] = defaultdict(int)
    for verdict in verdicts:
        objects[verdict.kind, verdict.reason] += 1
        sizes[verdict.kind, verdict.reason] += verdict.size_bytes
    return [
        {"kind": kind, "reason": reason, "objects": number, "size_bytes": sizes[kind, reason]}
        for (kind, reason), number in objects.items()
    ]
