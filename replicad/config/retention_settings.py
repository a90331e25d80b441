"""The settings of what is kept, and for how long: rows of the table in settings.py."""

from __future__ import annotations

from replicad.config.setting import Kind, Section, Setting


def _keep(period: str, effect: str, example: str) -> Setting:
    return Setting(
        name=f"keep_{period}",
        kind=Kind.KEEP,
        section=Section.KEEPING,
        effect=effect,
        example=example,
        default="0",
    )


KEEPING = (
    Setting(
        name="retention",
        kind=Kind.CHOICE,
        section=Section.KEEPING,
        effect="Whether the owner deletes what none of the settings below keeps. Off, everything stays for ever, and "
        "the credentials need not allow to delete.",
        example="off",
        default="on",
        choices=("on", "off"),
    ),
    Setting(
        name="pitr_window",
        kind=Kind.DURATION,
        section=Section.KEEPING,
        effect="Any moment in the last so long can be restored. The newest snapshot that is older stays for it.",
        example="30d",
        default="7d",
        low="0s",
        high="3650d",
    ),
    _keep(
        "last",
        "Keep the newest snapshots also behind the window: so many, or those no older than so much before the newest. "
        "A snapshot behind the window is a restore point by itself, without the transactions after it.",
        "10",
    ),
    _keep("hourly", "Keep the last snapshot of each hour (UTC) that has one: so many hours, or for so long.", "48h"),
    _keep("daily", "Keep the last snapshot of each day (UTC) that has one: so many days, or for so long.", "30"),
    _keep("weekly", "Keep the last snapshot of each week (Monday to Sunday, UTC): so many, or for so long.", "8w"),
    _keep("monthly", "Keep the last snapshot of each month (UTC) that has one: so many months, or for so long.", "12"),
    _keep("yearly", "Keep the last snapshot of each year (UTC) that has one: so many years, or for so long.", "5"),
    Setting(
        name="min_snapshots",
        kind=Kind.COUNT,
        section=Section.KEEPING,
        effect="The newest so many snapshots stay whatever their age, with every transaction since the oldest of them.",
        example="3",
        default="2",
        low="1",
        high="1000",
    ),
    Setting(
        name="prune_grace",
        kind=Kind.DURATION,
        section=Section.KEEPING,
        effect="How long something stays that is no longer promised: longer than any restore takes.",
        example="6h",
        default="24h",
        low="0s",
        high="365d",
    ),
    Setting(
        name="retention_interval",
        kind=Kind.DURATION,
        section=Section.KEEPING,
        effect="Least time between two looks for what may go. A database that nobody writes to is looked at only when "
        "something is known to become too old.",
        example="1h",
        default="6h",
        low="1s",
        high="30d",
    ),
    Setting(
        name="preserve_replaced",
        kind=Kind.DURATION,
        section=Section.KEEPING,
        effect="How long the last state is preserved of a database in whose place one of less than half its size was "
        "put. 0s preserves none.",
        example="90d",
        default="30d",
        low="0s",
        high="3650d",
    ),
)
