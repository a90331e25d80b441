"""A verification's report, for people and for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.cli.output import columns, size
from replicad.cli.replica import summary
from replicad.plan.target import format_ms
from replicad.restore.verification.request import Level, State
from replicad.store.url import without_secrets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from replicad.config import DatabaseSettings
    from replicad.errors import ReplicadError
    from replicad.plan.damage import Stretch
    from replicad.restore.drill import DrillReport
    from replicad.restore.verification.request import Ahead, Finding, VerifyReport

_ERROR = "ERROR"
_ORDER = [_ERROR, *reversed(State)]


def worst(answers: Sequence[Mapping[str, object]]) -> str:
    """Return the worst state of all databases; one that could not be looked at is worse than any."""
    states = [str(answer["state"]) for answer in answers]
    return min(states, key=_ORDER.index, default=State.OK)


def error_as_json(name: str, error: ReplicadError) -> Mapping[str, object]:
    """Return what stands for a database that could not be looked at."""
    return {
        "name": name,
        "state": _ERROR,
        "error": type(error).__name__,
        "message": str(error),
        "exit_code": error.exit_code,
    }


def report_as_json(database: DatabaseSettings, report: VerifyReport) -> Mapping[str, object]:
    """Return a report as JSON-like values, with one finding per object."""
    looked = report.looked
    return {
        "name": database.name,
        "replica": without_secrets(database.replica),
        "state": report.state.value,
        "level": report.level.value,
        "passed": report.is_sound,
        "findings": [_finding(one) for one in report.findings],
        "findings_left_out": report.findings_left_out,
        "lost": [_stretch(one) for one in report.lost],
        "lost_transactions": sum(one.last - one.first + 1 for one in report.lost),
        "not_yet_uploaded": _ahead(report.ahead),
        "line": dict(summary(report.line)) if report.line is not None else None,
        "objects": looked.objects,
        "stored_bytes": looked.stored_bytes,
        "bodies": looked.bodies,
        "body_bytes": looked.body_bytes,
        "requests": looked.requests,
        "fetched_bytes": looked.fetched_bytes,
        "resume": report.cursor.token if report.cursor else None,
        "pass_bytes": report.cursor.read_bytes if report.cursor else None,
        "drill": None if report.drill is None else _drill(report.drill),
    }


def report_as_text(database: DatabaseSettings, report: VerifyReport) -> str:
    """Return a report for people: the state first, then what it rests on, then what is wrong."""
    looked = report.looked
    lines = [f"{database.name}: {report.state.value}"]
    if report.line is not None:
        found = summary(report.line)
        first, last = found["first_restorable_txid"], found["last_restorable_txid"]
        lines.append(
            f"Restorable: TXID {first} ({found['first_restorable_at']}) to {last} ({found['last_restorable_at']}), "
            f"{found['snapshots']} snapshots, {found['segments']} segments."
        )
    lines.append(f"Listed: {looked.objects} objects, {size(looked.stored_bytes)}.")
    if report.level is Level.BODIES:
        lines += _bodies(report)
    if report.ahead:
        lines.append(f"Not yet uploaded: {_waiting(report.ahead)}.")
    if report.drill is not None:
        lines += _drilled(report.drill)
    if report.findings:
        lines += ["", _table(report.findings), ""]
    if report.findings_left_out:
        lines.append(f"And {report.findings_left_out} more.")
    lines += [f"Cannot be restored: {stretch}" for stretch in report.lost]
    if report.findings and not report.lost and report.line is not None:
        lines.append("Every instant can still be restored, by another way where it has to be.")
    return "\n".join(lines)


def _bodies(report: VerifyReport) -> list[str]:
    looked = report.looked
    lines = [f"Read and checked: {looked.bodies} objects, {size(looked.body_bytes)}."]
    if report.cursor is not None:
        share = 100 * report.cursor.read_bytes / max(1, looked.stored_bytes)
        lines.append(f"This pass has come to {share:.0f}% of the bytes. Go on with --resume {report.cursor.token}")
    return lines


def _drilled(drill: DrillReport) -> list[str]:
    lines = [f"Drill {'passed' if drill.passed else 'FAILED'} in {drill.seconds:.1f} s."]
    if drill.restored and drill.commit_ms is not None and drill.rto_seconds is not None:
        lines.append(
            f"Restored TXID {drill.txid}, committed at {format_ms(drill.commit_ms)}; the database could be opened "
            f"after {drill.rto_seconds:.1f} s."
        )
    if drill.problem:
        lines.append(f"Problem: {drill.problem}")
    lines += [f"Not true: {one.sql} ({one.found})" for one in drill.answers if not one.holds]
    return lines


def _table(findings: Sequence[Finding]) -> str:
    rows = [
        (
            one.fault.value,
            one.kind,
            "-" if one.served is None else f"{one.served.first}-{one.served.last}",
            "none" if one.has_other_way else ", ".join(f"{part.first}-{part.last}" for part in one.lost),
            one.key,
            one.problem,
        )
        for one in findings
    ]
    return columns(("FAULT", "KIND", "TXID", "LOST", "OBJECT", "PROBLEM"), rows)


def _waiting(ahead: Ahead) -> str:
    parts = [f"{ahead.transactions} transactions"] if ahead.transactions is not None else []
    parts += [size(ahead.bytes)] if ahead.bytes is not None else []
    return ", ".join(parts)


def _finding(finding: Finding) -> Mapping[str, object]:
    return {
        "key": finding.key,
        "kind": finding.kind,
        "fault": finding.fault.value,
        "problem": finding.problem,
        "for": None if finding.served is None else _stretch(finding.served),
        "lost": [_stretch(one) for one in finding.lost],
        "other_way": finding.has_other_way,
    }


def _stretch(stretch: Stretch) -> Mapping[str, object]:
    return {
        "first_txid": stretch.first,
        "first_at": None if stretch.first_ms is None else format_ms(stretch.first_ms),
        "last_txid": stretch.last,
        "last_at": None if stretch.last_ms is None else format_ms(stretch.last_ms),
    }


def _ahead(ahead: Ahead | None) -> Mapping[str, object] | None:
    return None if ahead is None else {"transactions": ahead.transactions, "bytes": ahead.bytes}


def _drill(drill: DrillReport) -> Mapping[str, object]:
    return {
        "passed": drill.passed,
        "restored": drill.restored,
        "intact": drill.intact,
        "problem": drill.problem,
        "txid": drill.txid,
        "committed_at": None if drill.commit_ms is None else format_ms(drill.commit_ms),
        "database_bytes": drill.database_bytes,
        "rto_seconds": None if drill.rto_seconds is None else round(drill.rto_seconds, 3),
        "seconds": round(drill.seconds, 3),
        "unusable": list(drill.unusable),
        "assertions": [{"sql": one.sql, "holds": one.holds, "found": one.found} for one in drill.answers],
    }
