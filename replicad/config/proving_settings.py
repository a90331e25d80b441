"""The settings of the drill: rows of the table in settings.py."""

from __future__ import annotations

from replicad.config.setting import Kind, Section, Setting

PROVING = (
    Setting(
        name="drill_interval",
        kind=Kind.DURATION,
        section=Section.PROVING,
        effect="How often the daemon restores the newest state into a temporary folder to see that it can; 0s for "
        "never. Left out when nothing was stored since the last drill that passed.",
        example="12h",
        default="24h",
        low="0s",
        high="365d",
    ),
    Setting(
        name="drill_folder",
        kind=Kind.PATH,
        section=Section.PROVING,
        effect="Where a drill makes its temporary folder; it needs room for a second copy of the database.",
        example="/mnt/scratch",
        default_shown="the folder of the database",
    ),
    Setting(
        name="drill_timeout",
        kind=Kind.DURATION,
        section=Section.PROVING,
        effect="How long a drill of the daemon may take before it is ended and counts as failed.",
        example="30m",
        default="6h",
        low="1s",
        high="7d",
    ),
    Setting(
        name="assertions",
        kind=Kind.STATEMENTS,
        section=Section.PROVING,
        effect="SQL that must be true of a restored database: each statement returns one row whose first column is 1. "
        "In a file a list of statements, elsewhere statements that end with a semicolon.",
        example="SELECT count(*) > 0 FROM users; SELECT max(written_at) > '2026-01-01' FROM notes;",
    ),
    Setting(
        name="assertion_timeout",
        kind=Kind.DURATION,
        section=Section.PROVING,
        effect="How long one assertion may take before it counts as not true.",
        example="10s",
        default="1m",
        low="100ms",
        high="1h",
    ),
)
