"""What is promised, worked out without the product: states by time, snapshots by restic's words, nothing left behind.

Whoever reads this beside `replicad/plan` should find the same promises in other words.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from tests.simulate.year_store import Bucket

DAY_MS = 86_400_000
FLOOR_BYTES = 1 << 20  # for claims, starts, manifests, and a snapshot under way of a database that is new
DELAY_MS = 250
"""Within so long of a commit its time is noted, while the process runs: what capture promises of its clock."""

_SNAPSHOT = re.compile(r"epochs/([0-9a-f]{8})/snapshots/([0-9a-f]{16})-(\d+)\.json")
_LOG = re.compile(r"epochs/([0-9a-f]{8})/log/([0-9a-f]{16})-([0-9a-f]{16})-(\d+)\.(?:seg|(\d)\.segs)")
_PERIODS = {"daily": "%Y-%m-%d", "weekly": "%G-%V", "monthly": "%Y-%m", "yearly": "%Y"}


class Broken(AssertionError):
    """A promise was not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the year's settings promise, in days and counts."""

    window_days: float
    grace_days: float
    look_days: float  # between two looks of retention
    rollup_grace_days: float
    min_snapshots: int
    keep: Mapping[str, int]


@dataclass(slots=True, kw_only=True)
class State:
    """One commit: when it was made, by when it was noted at the latest, and what the database held."""

    number: int
    at_ms: int
    noted_ms: int
    digest: int
    image: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One that was stored on the line."""

    key: str
    txid: int
    ms: int
    stored_ms: int
    bytes: int  # of its chunks


@dataclass(frozen=True, slots=True, kw_only=True)
class Preserved:
    """A state that somebody asked to keep."""

    txid: int
    until_ms: int
    state: State


@dataclass
class Timeline:
    """Every state of the line, by time."""

    states: list[State] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    marks: list[Preserved] = field(default_factory=list)

    def add(self, state: State) -> None:
        """Note a commit."""
        self.states.append(state)

    def cut(self, number: int) -> list[State]:
        """Forget what was committed after a number: the line goes on from there without it; return that."""
        keep = next((at for at in range(len(self.states), 0, -1) if self.states[at - 1].number <= number), 0)
        lost, self.states = self.states[keep:], self.states[:keep]
        return lost

    def delay(self, since_ms: int, until_ms: int) -> None:
        """Note that commits from an instant on may be noted as late as at another: the process was killed."""
        for state in reversed(self.states):
            if state.at_ms < since_ms:
                return
            state.noted_ms = until_ms

    def at(self, ms: int) -> list[State]:
        """Return the states that a restore to an instant may give: one, unless a commit was made that very moment."""
        last = bisect_right(self.states, ms, key=lambda state: state.at_ms)
        first = bisect_right(self.states, ms, key=lambda state: state.noted_ms)
        return self.states[max(0, first - 1) : last]

    def promised(self, policy: Policy, stored: Sequence[Snapshot] | None = None) -> dict[str, Snapshot]:
        """Return the snapshots that the rules promise, of all that were ever stored, by key, as restic has it.

        From the newest to the oldest the first of each period that has one, until there are as many as the rule
        counts; with fewer, the oldest one too.
        """
        found: dict[str, Snapshot] = {}
        snapshots = self.snapshots if stored is None else stored
        for rule, count in policy.keep.items():
            labels: set[str] = set()
            for snapshot in reversed(snapshots):
                label = datetime.fromtimestamp(snapshot.ms / 1000, UTC).strftime(_PERIODS[rule])
                if label not in labels and len(labels) < count:
                    labels.add(label)
                    found[snapshot.key] = snapshot
            if snapshots and len(labels) < count:
                found[snapshots[0].key] = snapshots[0]
        return found

    def preserving(self, now_ms: int) -> list[tuple[Snapshot, Preserved]]:
        """Return the marks that are in force, each with the snapshot that the way to its state begins with."""
        found = []
        for mark in self.marks:
            before = [one for one in self.snapshots if one.txid <= mark.txid]
            if now_ms < mark.until_ms and before:
                found.append((before[-1], mark))
        return found

    def window_base(self, policy: Policy, now_ms: int, stored: Sequence[Snapshot] | None = None) -> Snapshot | None:
        """Return the snapshot that the window rests on: the newest before it, or the oldest of the last few."""
        snapshots = self.snapshots if stored is None else stored
        before = [one for one in snapshots if max(one.ms, one.stored_ms) <= now_ms - policy.window_days * DAY_MS]
        if not before:
            return None
        return min(before[-1], snapshots[-min(policy.min_snapshots, len(snapshots))], key=lambda one: one.txid)


def snapshot_of(key: str, body: bytes, now_ms: int) -> Snapshot | None:
    """Return what a stored object says of a snapshot, None when it is none."""
    match = _SNAPSHOT.fullmatch(key)
    if match is None:
        return None
    chunks = {chunk["key"]: chunk["stored_bytes"] for chunk in json.loads(body)["chunks"]}
    return Snapshot(key=key, txid=int(match[2], 16), ms=int(match[3]), stored_ms=now_ms, bytes=sum(chunks.values()))


class Superfluous:
    """Sees that what belongs to nothing is gone after its grace; and that what is stored has a bound."""

    def __init__(self, folder: Path, policy: Policy) -> None:
        self._folder = folder
        self._policy = policy
        self._since_ms: dict[str, int] = {}
        self.log_puts: list[tuple[int, int]] = []  # when so many bytes of log were stored

    def forgive(self) -> None:
        """Begin to wait anew for what should be gone."""
        self._since_ms.clear()

    def check(self, bucket: Bucket, timeline: Timeline, now_ms: int) -> None:
        """Look at all that is stored.

        Raises:
            Broken: something is there for too long, or too much.
        """
        found = set(self._find(bucket.sizes, timeline, now_ms))
        self._since_ms = {key: self._since_ms.get(key, now_ms) for key in found}
        patience_ms = round((self._policy.grace_days + self._policy.look_days + 1.0) * DAY_MS)
        late = sorted(key for key, since_ms in self._since_ms.items() if now_ms - since_ms > patience_ms)
        if late:
            raise Broken(f"{len(late)} objects belong to nothing and were not deleted, the first of them {late[0]}")
        most = self.bound(timeline, now_ms)
        if bucket.stored_bytes > most:
            raise Broken(f"{bucket.stored_bytes} bytes are stored, {most} at most are expected")

    def bound(self, timeline: Timeline, now_ms: int) -> int:
        """Return how much may be stored: a whole database for each snapshot that is due, and the log of the window."""
        patience_ms = round((self._policy.grace_days + self._policy.look_days + 1.0) * DAY_MS)
        then = [one for one in timeline.snapshots if one.stored_ms <= now_ms - patience_ms]
        base = timeline.window_base(self._policy, now_ms - patience_ms, then)
        since_ms = base.ms if base else 0
        kept = {one.key: one for one in timeline.snapshots if one.ms >= since_ms}
        for end in range(len(then), len(timeline.snapshots)):  # what the rules have promised at any time since then
            kept |= timeline.promised(self._policy, timeline.snapshots[:end])
        kept |= timeline.promised(self._policy)
        log_bytes = sum(size for ms, size in self.log_puts if ms >= since_ms)
        for one, mark in timeline.preserving(now_ms - patience_ms):
            kept[one.key] = one
            log_bytes += sum(size for ms, size in self.log_puts if one.ms <= ms <= mark.state.noted_ms + DAY_MS)
        return sum(one.bytes for one in kept.values()) + log_bytes + FLOOR_BYTES

    def _find(self, stored: Iterable[str], timeline: Timeline, now_ms: int) -> Iterable[str]:
        base = timeline.window_base(self._policy, now_ms)
        marks = timeline.preserving(now_ms)
        kept = {*timeline.promised(self._policy), *(one.key for one, _ in marks)}
        listed: set[str] = set()
        logs: list[tuple[str, int, int, int, int]] = []
        for key in stored:
            if (match := _SNAPSHOT.fullmatch(key)) is not None:
                listed |= {chunk["key"] for chunk in json.loads((self._folder / key).read_bytes())["chunks"]}
                if base is not None and int(match[2], 16) < base.txid and key not in kept:
                    yield key
            elif (match := _LOG.fullmatch(key)) is not None:
                logs.append((key, int(match[1], 16), int(match[2], 16), int(match[3], 16), int(match[5] or 0)))
            elif key.startswith("probes/"):
                yield key
        yield from (key for key in stored if "/chunks/" in key and key not in listed)
        if base is not None:
            yield from (
                key
                for key, _, first, last, _ in logs
                if last <= base.txid and not any(one.txid < last and first <= mark.txid for one, mark in marks)
            )
        yield from _covered(logs)


def _covered(logs: list[tuple[str, int, int, int, int]]) -> Iterable[str]:
    """Yield segments whose transactions are all in a roll-up of the same epoch."""
    rolled = [one for one in logs if one[4]]
    for key, epoch, first, last, level in logs:
        if any(above[1] == epoch and above[4] > level and above[2] <= first and last <= above[3] for above in rolled):
            yield key
