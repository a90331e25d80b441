"""The metrics: plain numbers that the event loop writes and a scrape reads.

A client library's object per number costs about a kilobyte and a lock, for each of thirty metrics of each
database; here a database costs one slotted object, and the library is loaded at the first scrape only. The
tables below say which attribute becomes which metric; docs/metrics.md is made from them.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import msgspec

from replicad.observe.histogram import DURABLE_SECONDS, FROZEN_SECONDS, REQUEST_SECONDS, STALL_SECONDS, Histogram

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicad.observe.exposition import Exposition


def _none_pending() -> float:
    return 0.0


class DatabaseMetrics(msgspec.Struct, kw_only=True, eq=False):
    """What is measured of one database. Written from the event loop only; None means not known yet."""

    # A Struct, because a dataclass of as many fields takes 5 ms to define.

    # Asked at each scrape, possibly from another thread: must only read.
    lag_seconds: Callable[[], float] = _none_pending

    pending_bytes: int = 0
    pending_transactions: int = 0
    captured_txid: int = 0
    durable_txid: int = 0
    durable_ms: int | None = None
    epoch: int = 0
    owner: bool = False
    fencing_advisory: bool | None = None
    orphaned_transactions: int | None = None
    first_restorable_ms: int | None = None
    last_restorable_ms: int | None = None
    snapshot_ms: int | None = None
    snapshot_txid: int | None = None
    snapshot_stored_bytes: int | None = None
    capturing: bool = False
    store_reachable: bool | None = None
    wal_bytes: int | None = None
    database_bytes: int | None = None
    database_pages: int | None = None
    disk_free_bytes: int | None = None
    restore_seconds: float | None = None
    sqlite_vulnerable: bool | None = None
    drill_passed: bool | None = None
    drill_ms: int | None = None
    drill_passed_ms: int | None = None
    drill_seconds: float | None = None
    drill_rto_seconds: float | None = None
    lost_transactions: int | None = None

    window_begin_ms: int | None = None
    clock_difference_seconds: float | None = None
    preserve_marks: int | None = None
    states_preserved: int = 0
    stored_objects: defaultdict[str, int] = msgspec.field(default_factory=lambda: defaultdict(int))  # by kind
    stored_bytes: defaultdict[str, int] = msgspec.field(default_factory=lambda: defaultdict(int))  # by kind
    deleted_objects: defaultdict[str, int] = msgspec.field(default_factory=lambda: defaultdict(int))  # by reason
    deleted_bytes: defaultdict[str, int] = msgspec.field(default_factory=lambda: defaultdict(int))  # by reason

    transactions: int = 0
    captured_bytes: int = 0
    segments: int = 0
    segment_bytes: int = 0
    snapshots: int = 0
    chunks_stored: int = 0
    chunk_bytes: int = 0
    chunks_reused: int = 0
    rollups: int = 0
    rollup_bytes: int = 0
    rollups_refused: int = 0
    rolled_up_deleted: int = 0
    checkpoints: int = 0
    wal_let_go: int = 0
    fenced: int = 0
    handovers: defaultdict[str, int] = msgspec.field(default_factory=lambda: defaultdict(int))  # by result
    lost_answers: int = 0
    lag_freezes: int = 0
    damage_found: int = 0
    drills: defaultdict[str, int] = msgspec.field(default_factory=lambda: defaultdict(int))  # by result
    resynchronisations: defaultdict[str, int] = msgspec.field(default_factory=lambda: defaultdict(int))  # by reason
    errors: defaultdict[str, int] = msgspec.field(default_factory=lambda: defaultdict(int))  # by class of error

    # Of each mirror, by its URL.
    mirror_lag_seconds: dict[str, Callable[[], float]] = msgspec.field(default_factory=dict)
    mirror_txid: dict[str, int] = msgspec.field(default_factory=dict)
    mirror_failing: dict[str, bool] = msgspec.field(default_factory=dict)
    mirror_objects: defaultdict[str, int] = msgspec.field(default_factory=lambda: defaultdict(int))
    mirror_bytes: defaultdict[str, int] = msgspec.field(default_factory=lambda: defaultdict(int))
    mirror_errors: defaultdict[str, int] = msgspec.field(default_factory=lambda: defaultdict(int))

    checkpoint_stall: Histogram = msgspec.field(default_factory=lambda: Histogram(STALL_SECONDS))
    frozen: Histogram = msgspec.field(default_factory=lambda: Histogram(FROZEN_SECONDS))
    durable_delay: Histogram = msgspec.field(default_factory=lambda: Histogram(DURABLE_SECONDS))


@dataclass(slots=True, kw_only=True, eq=False)
class RequestMetrics:
    """Requests of one verb."""

    outcomes: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    sent_bytes: int = 0
    received_bytes: int = 0
    duration: Histogram = field(default_factory=lambda: Histogram(REQUEST_SECONDS))


class RequestCounts:
    """Requests to one store, by verb. Implements the store's RequestObserver."""

    def __init__(self) -> None:
        self.requests: defaultdict[str, RequestMetrics] = defaultdict(RequestMetrics)

    def request(self, verb: str, outcome: str, seconds: float, sent_bytes: int, received_bytes: int) -> None:
        """Count one request."""
        requests = self.requests[verb]
        requests.outcomes[outcome] += 1
        requests.sent_bytes += sent_bytes
        requests.received_bytes += received_bytes
        requests.duration.observe(seconds)


class Metrics(RequestCounts):
    """All metrics of a process. Implements the store's RequestObserver, for the store of the replicas."""

    def __init__(self, *, version: str, wall_seconds: Callable[[], float]) -> None:
        super().__init__()
        self.version = version
        self.wall_seconds = wall_seconds
        self.started_seconds = wall_seconds()
        self.ready: Callable[[], bool] = lambda: False
        self.databases: dict[str, DatabaseMetrics] = {}
        self.mirror_requests: dict[str, RequestCounts] = {}
        self._exposition: Exposition | None = None

    def for_database(self, name: str) -> DatabaseMetrics:
        """Return the numbers of one database, the same object for the same name."""
        return self.databases.setdefault(name, DatabaseMetrics())

    def forget_database(self, name: str) -> None:
        """Leave a database out of later scrapes."""
        self.databases.pop(name, None)

    def for_mirror(self, label: str) -> RequestCounts:
        """Return what counts the requests to a mirror, the same object for the same mirror."""
        return self.mirror_requests.setdefault(label, RequestCounts())

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return a scrape's body and its content type. Takes milliseconds; the first call imports the client library.

        Args:
            accept: the request's Accept header, which chooses between Prometheus' text and OpenMetrics.
        """
        if self._exposition is None:
            from replicad.observe.exposition import Exposition  # noqa: PLC0415 - 60 ms and 5 MB for those who scrape

            self._exposition = Exposition(self)
        return self._exposition.render(accept)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One metric of a database: the attribute it is read from, its name and help."""

    field: str
    name: str
    kind: Literal["gauge", "counter", "histogram"]
    help: str
    label: str | None = None  # the attribute is a count per value of this label
    scale: float = 1.0


def _gauge(field_name: str, name: str, help_text: str, scale: float = 1.0, *, label: str | None = None) -> Row:
    return Row(field=field_name, name=f"replicad_{name}", kind="gauge", help=help_text, scale=scale, label=label)


def _counter(field_name: str, name: str, help_text: str, label: str | None = None) -> Row:
    return Row(field=field_name, name=f"replicad_{name}_total", kind="counter", help=help_text, label=label)


def _histogram(field_name: str, name: str, help_text: str) -> Row:
    return Row(field=field_name, name=f"replicad_{name}_seconds", kind="histogram", help=help_text)


DATABASE_ROWS: tuple[Row, ...] = (
    _gauge("lag_seconds", "replication_lag_seconds", "Age of the oldest commit that is not durable yet; 0 when none."),
    _gauge("pending_bytes", "pending_bytes", "Page bytes that were captured and are not durable yet."),
    _gauge("pending_transactions", "pending_transactions", "Transactions that were captured and are not durable yet."),
    _gauge("captured_txid", "captured_txid", "TXID of the newest transaction captured."),
    _gauge("durable_txid", "durable_txid", "TXID of the newest transaction that is durable in the store."),
    _gauge("durable_ms", "durable_timestamp_seconds", "Commit time of the newest durable transaction.", 0.001),
    _gauge("epoch", "epoch", "Epoch this instance writes into; 0 before its claim."),
    _gauge("owner", "owner", "1 while this instance owns the database: what it stores is part of the line."),
    _gauge(
        "fencing_advisory",
        "fencing_advisory",
        "1 when the store does not keep two owners apart by itself, 0 when it does; absent before the first claim.",
    ),
    _gauge("orphaned_transactions", "orphaned_transactions", "Transactions stored that are not on the line."),
    _gauge(
        "first_restorable_ms", "first_restorable_timestamp_seconds", "Earliest instant that can be restored.", 0.001
    ),
    _gauge("last_restorable_ms", "last_restorable_timestamp_seconds", "Latest instant that can be restored.", 0.001),
    _gauge("snapshot_ms", "snapshot_timestamp_seconds", "Commit time of the newest snapshot's transaction.", 0.001),
    _gauge("snapshot_txid", "snapshot_txid", "TXID of the newest snapshot."),
    _gauge("snapshot_stored_bytes", "snapshot_stored_bytes", "Compressed size of the newest snapshot."),
    _gauge("capturing", "capturing", "1 while both pins hold and commits are being captured."),
    _gauge("store_reachable", "store_reachable", "1 when the last request to the store succeeded, 0 in an outage."),
    _gauge("wal_bytes", "wal_bytes", "Size of the WAL file."),
    _gauge("database_bytes", "database_bytes", "Size of the database."),
    _gauge("database_pages", "database_pages", "Pages of the database."),
    _gauge("disk_free_bytes", "disk_free_bytes", "Free bytes on the database's file system."),
    _gauge("restore_seconds", "restore_duration_seconds", "How long the restore at the start took."),
    _gauge(
        "sqlite_vulnerable", "sqlite_vulnerable", "1 when the application's SQLite is known to have the WAL-reset bug."
    ),
    _gauge(
        "window_begin_ms",
        "window_begin_timestamp_seconds",
        "From here on any moment can be restored, as of the last run of retention.",
        0.001,
    ),
    _gauge(
        "clock_difference_seconds",
        "store_clock_difference_seconds",
        "By how much the store's clock is ahead; from two hours on, either way, nothing is deleted.",
    ),
    _gauge("preserve_marks", "preserve_marks", "Preserve marks in force."),
    Row(
        field="stored_objects",
        name="replicad_stored_objects",
        kind="gauge",
        help="Objects stored, as of the last run of retention.",
        label="kind",
    ),
    Row(
        field="stored_bytes",
        name="replicad_stored_bytes",
        kind="gauge",
        help="Bytes stored, as of the last run of retention.",
        label="kind",
    ),
    _counter("states_preserved", "states_preserved", "States that were preserved because a much smaller one came."),
    _counter("deleted_objects", "deleted_objects", "Objects deleted by retention.", "reason"),
    _counter("deleted_bytes", "deleted_bytes", "Bytes deleted by retention.", "reason"),
    _gauge("drill_passed", "drill_passed", "1 when the last drill passed, 0 when it failed; absent before the first."),
    _gauge("drill_ms", "drill_timestamp_seconds", "When the last drill ended, or could not be run.", 0.001),
    _gauge("drill_passed_ms", "drill_success_timestamp_seconds", "When a drill passed last.", 0.001),
    _gauge("drill_seconds", "drill_duration_seconds", "How long the last drill took."),
    _gauge(
        "drill_rto_seconds",
        "drill_rto_seconds",
        "Recovery time that the last drill measured: from the start of a restore until the database can be opened.",
    ),
    _gauge("lost_transactions", "lost_transactions", "Transactions that cannot be restored, by the last drill."),
    _counter("transactions", "transactions", "Transactions captured."),
    _counter("captured_bytes", "captured_bytes", "Page bytes captured."),
    _counter("segments", "segments", "Segments made durable."),
    _counter("segment_bytes", "segment_bytes", "Bytes of segments made durable."),
    _counter("snapshots", "snapshots", "Snapshots made durable."),
    _counter("chunks_stored", "snapshot_chunks_stored", "Snapshot chunks uploaded."),
    _counter("chunk_bytes", "snapshot_chunk_bytes", "Bytes of snapshot chunks uploaded."),
    _counter(
        "chunks_reused", "snapshot_chunks_reused", "Snapshot chunks not uploaded because they were stored already."
    ),
    _counter("rollups", "rollups", "Roll-ups of segments stored."),
    _counter("rollup_bytes", "rollup_bytes", "Bytes of roll-ups stored."),
    _counter("rollups_refused", "rollups_refused", "Objects that were not rolled up: damaged, or unlike a neighbour."),
    _counter("rolled_up_deleted", "rolled_up_deleted", "Objects deleted whose transactions a roll-up holds."),
    _counter("checkpoints", "checkpoints", "Write-locked checkpoints that made room in the WAL."),
    _counter("wal_let_go", "wal_let_go", "Times the WAL was let go unread: too long, or a checkpoint waited for it."),
    _counter("fenced", "fenced", "Times another instance took over without this one having handed over."),
    _counter("handovers", "handovers", "Handovers this instance took part in, by how they ended.", "result"),
    _counter("lost_answers", "lost_answers_settled", "Claims that got no plain answer and were read back."),
    _counter("lag_freezes", "max_lag_freezes", "Times writers were kept out because a commit was older than max_lag."),
    _counter("damage_found", "damage_found", "Times a drill found objects missing or damaged that were sound before."),
    _counter("drills", "drills", "Drills, by how they ended: passed, failed or put_off.", "result"),
    _counter("resynchronisations", "resynchronisations", "Times the state was compared or taken anew.", "reason"),
    _counter("errors", "errors", "Errors, by class.", "kind"),
    _gauge(
        "mirror_lag_seconds",
        "mirror_lag_seconds",
        "Age of the oldest object of the replica that is not known to be in the mirror; 0 when none.",
        label="mirror",
    ),
    _gauge("mirror_txid", "mirror_copied_txid", "TXID of the newest transaction in the mirror.", label="mirror"),
    _gauge("mirror_failing", "mirror_failing", "1 while nothing can be copied to the mirror.", label="mirror"),
    _counter("mirror_objects", "mirror_objects", "Objects copied to the mirror.", "mirror"),
    _counter("mirror_bytes", "mirror_bytes", "Bytes copied to the mirror.", "mirror"),
    _counter("mirror_errors", "mirror_errors", "Attempts to copy to the mirror that failed.", "mirror"),
    _histogram("checkpoint_stall", "checkpoint_stall", "How long writers had to wait for a write-locked checkpoint."),
    _histogram("frozen", "frozen", "How long writers were kept out, for a handover or because of max_lag."),
    _histogram("durable_delay", "durable_delay", "Time from a commit being seen to its being durable."),
)
