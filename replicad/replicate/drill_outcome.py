"""What a drill came to: read from the child's answer, and kept beside the database until the next one."""

from __future__ import annotations

from pathlib import Path

import msgspec

from replicad.document import decoder_of
from replicad.errors import FileUnusable, NoSpace
from replicad.host.files import atomic_write
from replicad.plan.drill import LastDrill

VERSION = 1
_MOST_KEYS = 1_000


class _Stretch(msgspec.Struct):
    first_txid: int
    last_txid: int


class _Finding(msgspec.Struct):
    key: str
    fault: str
    problem: str


class _Assertion(msgspec.Struct):
    sql: str
    holds: bool
    found: str


class _Drill(msgspec.Struct):
    passed: bool
    restored: bool
    intact: bool
    problem: str | None
    txid: int | None
    rto_seconds: float | None
    seconds: float
    assertions: list[_Assertion]


class _Database(msgspec.Struct):
    state: str
    findings: list[_Finding]
    lost: list[_Stretch]
    lost_transactions: int
    drill: _Drill | None


class _Answer(msgspec.Struct):
    databases: list[_Database]


class DrillOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """One drill."""

    ran: bool  # it came to a result
    passed: bool  # the newest state was restored, is the source's and intact, and every assertion holds
    restored: bool
    problem: str | None
    kind: str | None = None  # of the error that kept it from running
    state: str | None = None  # as `replicad verify` calls it
    txid: int | None = None
    seconds: float | None = None
    rto_seconds: float | None = None
    lost_transactions: int = 0
    lost: tuple[str, ...] = ()  # "first-last", TXIDs
    faulty: frozenset[str] = frozenset()  # keys of objects that are missing or damaged


class DrillRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The last drill, as it is kept beside the database."""

    version: int = VERSION
    database_id: str
    at_ms: int
    outcome: DrillOutcome
    known: frozenset[str] = frozenset()  # faulty objects that a fresh snapshot has not healed
    passed_ms: int | None = None  # when one passed last

    @property
    def last(self) -> LastDrill:
        """What the next drill's time depends on."""
        return LastDrill(at_ms=self.at_ms, ran=self.outcome.ran)


def outcome_of(output: bytes) -> DrillOutcome:
    """Return the outcome that the JSON of `replicad verify --level drill` tells.

    Raises:
        msgspec.DecodeError: it is none.
    """
    answer = decoder_of(_Answer).decode(output)
    if len(answer.databases) != 1:
        msg = f"an answer about {len(answer.databases)} databases"
        raise msgspec.ValidationError(msg)
    found, drill = answer.databases[0], answer.databases[0].drill
    return DrillOutcome(
        ran=True,
        passed=drill is not None and drill.passed,
        restored=drill is not None and drill.restored,
        problem=_problem(found, drill),
        state=found.state,
        txid=drill.txid if drill else None,
        seconds=drill.seconds if drill else None,
        rto_seconds=drill.rto_seconds if drill else None,
        lost_transactions=found.lost_transactions,
        lost=tuple(f"{one.first_txid}-{one.last_txid}" for one in found.lost),
        faulty=frozenset(one.key for one in found.findings[:_MOST_KEYS]),
    )


def unrun(kind: str, problem: str) -> DrillOutcome:
    """Return the outcome of a drill that came to no result; a history that is gone altogether is one."""
    gone = kind == "NoBackup"
    return DrillOutcome(
        ran=gone, passed=False, restored=False, problem=problem, kind=kind, state="LOST" if gone else None
    )


def record_path(database: Path) -> Path:
    """Return where the last drill of a database is kept."""
    return Path(f"{database}-replicad-drill")


def read_record(database: Path, *, database_id: str) -> DrillRecord | None:
    """Return the last drill of this history, None when there is none that can be read. Blocks."""
    try:
        record = decoder_of(DrillRecord).decode(record_path(database).read_bytes())
    except (OSError, msgspec.DecodeError):
        return None
    return record if (record.version, record.database_id) == (VERSION, database_id) else None


def write_record(database: Path, record: DrillRecord) -> None:
    """Keep a drill; without it the next one comes sooner, no more. Blocks."""
    try:
        atomic_write(record_path(database), msgspec.json.encode(record), durable=False)
    except (NoSpace, FileUnusable):
        return


def _problem(found: _Database, drill: _Drill | None) -> str | None:
    if drill is None:
        return "; ".join(f"{one.key}: {one.problem}" for one in found.findings[:1]) or "the history cannot be read"
    wrong = [drill.problem] if drill.problem else []
    wrong += [f"not true: {one.sql} ({one.found})" for one in drill.assertions if not one.holds]
    return "; ".join(wrong) or None
