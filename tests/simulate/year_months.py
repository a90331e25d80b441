"""What is counted month by month: a bill comes once a month."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.simulate.year_oracle import DAY_MS
from tests.simulate.year_plan import Month
from tests.simulate.year_store import Traffic

if TYPE_CHECKING:
    from pathlib import Path

    from tests.simulate.year_plan import Outcome
    from tests.simulate.year_store import CountedStore


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counted:
    """What was counted up to the end of a month."""

    traffic: Traffic = field(default_factory=Traffic)
    wal_bytes: int = 0
    byte_ms: int = 0
    commits: int = 0
    restores: int = 0


class Months:
    """Cuts what goes on into months; `commits` are counted by whoever makes them, `days` by whoever lives them.

    Args:
        store: what the daemon uses.
        database: the file.
    """

    def __init__(self, store: CountedStore, database: Path) -> None:
        self.commits = 0
        self.days = 0  # of the month
        self._store = store
        self._database = database
        self._before = _Counted()

    def close(self, outcome: Outcome, *, wal_bytes: int, restores: int) -> None:
        """End a month, and add it; `wal_bytes` and `restores` are those since the beginning of all."""
        bucket, before = self._store.bucket, self._before
        bucket.weigh()
        self._before = after = _Counted(
            traffic=self._store.traffic.copy(),
            wal_bytes=wal_bytes,
            byte_ms=bucket.byte_ms,
            commits=self.commits,
            restores=restores,
        )
        month = Month(
            days=self.days,
            commits=after.commits - before.commits,
            wal_bytes=after.wal_bytes - before.wal_bytes,
            objects=len(bucket.sizes),
            stored_bytes=bucket.stored_bytes,
            gb_months=(after.byte_ms - before.byte_ms) / 1e9 / (30 * DAY_MS),
            database_bytes=self._database.stat().st_size,
            traffic=after.traffic.since(before.traffic),
            restores=after.restores - before.restores,
        )
        outcome.months.append(month)
        self.days = 0
