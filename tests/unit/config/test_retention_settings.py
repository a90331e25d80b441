"""The settings of retention: counts and intervals, and the policy they make."""

from __future__ import annotations

import pytest

from replicad.config import load
from replicad.config.parse import parse
from replicad.config.settings import BY_NAME
from replicad.errors import UsageError
from replicad.plan.policy import Keep, RetentionPolicy

BASE = {"REPLICAD_DATABASE": "/data/app.db", "REPLICAD_REPLICA": "file:///backup"}


@pytest.mark.parametrize(
    ("text", "keep"),
    [
        ("0", Keep()),
        ("12", Keep(count=12)),
        ("1000000", Keep(count=1_000_000)),
        ("8w", Keep(within_seconds=8 * 7 * 86_400.0)),
        ("1h", Keep(within_seconds=3600.0)),
        ("365d", Keep(within_seconds=365 * 86_400.0)),
    ],
)
def test_a_number_is_a_count_and_a_duration_an_interval(text: str, keep: Keep) -> None:
    """What has a unit is an interval; 0 keeps nothing."""
    assert parse(BY_NAME["keep_daily"], text, "here") == keep
    assert keep.any == (text != "0")


@pytest.mark.parametrize("text", ["-1", "1.5", "1000001", "59m", "0s", "many", "12 months", "1000001h"])
def test_what_is_neither(text: str) -> None:
    """Anything else is refused with what was expected and an example."""
    with pytest.raises(UsageError, match=r"a count, or a duration with its unit .* Example: 30"):
        parse(BY_NAME["keep_daily"], text, "keep_daily")


def test_the_policy_is_what_the_settings_say() -> None:
    """The defaults are the promise of the documentation; every setting reaches the policy."""
    assert load(flags={}, environ=BASE).settings.retention_policy == RetentionPolicy(
        pitr_window_seconds=7 * 86_400.0,
        grace_seconds=86_400.0,
        min_snapshots=2,
        keep=dict.fromkeys(("last", "hourly", "daily", "weekly", "monthly", "yearly"), Keep()),
    )
    flags = {"pitr_window": "1d", "prune_grace": "1h", "min_snapshots": "5", "keep_yearly": "3", "keep_hourly": "2d"}
    policy = load(flags=flags, environ=BASE).settings.retention_policy
    assert (policy.pitr_window_seconds, policy.grace_seconds, policy.min_snapshots) == (86_400.0, 3600.0, 5)
    assert (policy.keep["yearly"], policy.keep["hourly"]) == (Keep(count=3), Keep(within_seconds=2 * 86_400.0))
