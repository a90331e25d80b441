"""What happens in a simulated year, what is promised meanwhile, and what is counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.simulate.year_application import Rhythm
from tests.simulate.year_oracle import Policy

if TYPE_CHECKING:
    from tests.simulate.year_store import Traffic

YEAR_SETTINGS = {
    "pitr_window": "7d",
    "keep_daily": "14",
    "keep_weekly": "8",
    "keep_monthly": "12",
    "keep_yearly": "3",
    "safety_poll_interval": "1h",  # the watch sees every commit; looking beside it costs no request
    "drill_interval": "0s",
    "boot_timeout": "1h",
}
YEAR_POLICY = Policy(
    window_days=7.0,
    grace_days=1.0,
    look_days=0.25,
    rollup_grace_days=1 / 24,
    min_snapshots=2,
    keep={"daily": 14, "weekly": 8, "monthly": 12, "yearly": 3},
)
WEEKS_SETTINGS = YEAR_SETTINGS | {"pitr_window": "2d", "prune_grace": "6h", "keep_daily": "4", "keep_weekly": "3"}
WEEKS_POLICY = Policy(
    window_days=2.0,
    grace_days=0.25,
    look_days=0.25,
    rollup_grace_days=1 / 24,
    min_snapshots=2,
    keep={"daily": 4, "weekly": 3, "monthly": 12, "yearly": 3},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One simulated time."""

    days: int = 365
    seed: int = 1
    rhythm: Rhythm = field(default_factory=Rhythm)
    settings: dict[str, str] = field(default_factory=lambda: dict(YEAR_SETTINGS))
    policy: Policy = YEAR_POLICY
    redeploys_a_week: float = 3.0
    crashes_a_week: float = 2.0
    checks_a_day: int = 3  # restores of moments within the window
    kept_every_days: int = 7  # a check of every snapshot that the rules promise


YEAR = Plan()
WEEKS = Plan(
    days=24,
    rhythm=Rhythm(
        commits_a_day=40.0, most_notes=400, notes_at_first=100, import_days=6, import_rows=200,
        vacuum_days=7, schema_days=9, purge_days=13, holiday=(17, 19),
    ),
    settings=WEEKS_SETTINGS,
    policy=WEEKS_POLICY,
    redeploys_a_week=4.0,
    crashes_a_week=6.0,
    checks_a_day=2,
    kept_every_days=4,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Month:
    """What was counted in a month, or in what there is of it."""

    days: int
    commits: int
    wal_bytes: int
    objects: int  # at its end
    stored_bytes: int  # at its end
    gb_months: float  # of 30 days
    database_bytes: int  # at its end
    traffic: Traffic
    restores: int  # that were checked


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of it."""

    plan: Plan
    months: list[Month] = field(default_factory=list)
    happened: Counter[str] = field(default_factory=Counter)
    said: Counter[str] = field(default_factory=Counter)
    most_requests: int = 0  # of one restore that was checked
    most_bytes: int = 0  # stored at any moment
    lost_commits: int = 0  # with a disk, that were not durable yet
