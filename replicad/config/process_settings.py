"""The settings of the process: whom it owns a database with, how it runs and what it tells: rows of settings.py."""

from __future__ import annotations

from replicad.config.setting import Kind, Section, Setting

OWNING = (
    Setting(
        name="handover_poll_interval",
        kind=Kind.DURATION,
        section=Section.OWNING,
        effect="How often the owner looks whether another instance asks for the database: the only request of an idle "
        "one. An instance that starts takes an owner for dead that does not answer for three times as long. All "
        "instances of a database must agree on it.",
        example="2s",
        default="5s",
        low="100ms",
        high="1m",
    ),
    Setting(
        name="handover_timeout",
        kind=Kind.DURATION,
        section=Section.OWNING,
        effect="How long a handover keeps the application's writers waiting at most, and how long an instance without "
        "a sign of life is waited for.",
        example="20s",
        default="30s",
        low="1s",
        high="1h",
    ),
    Setting(
        name="on_handover",
        kind=Kind.CHOICE,
        section=Section.OWNING,
        effect="What becomes of the application when another instance takes over: its writers wait and its readers go "
        "on, or it is stopped.",
        example="stop",
        default="freeze",
        choices=("freeze", "stop"),
    ),
    Setting(
        name="when_fenced",
        kind=Kind.CHOICE,
        section=Section.OWNING,
        effect="What becomes of the application when another instance has taken over without asking: its writers wait "
        "and its readers go on, or it is stopped and `run` ends with 11.",
        example="stop",
        default="freeze",
        choices=("freeze", "stop"),
    ),
    Setting(
        name="fencing",
        kind=Kind.CHOICE,
        section=Section.OWNING,
        effect="Whether a store must be able to keep two instances apart. `auto` warns when it cannot, `required` then "
        "does not start, `advisory` does not even try.",
        example="required",
        default="auto",
        choices=("auto", "required", "advisory"),
    ),
    Setting(
        name="max_lag",
        kind=Kind.DURATION,
        section=Section.OWNING,
        effect="When the oldest commit that is not durable is older than this, the application's writers wait until it "
        "is. Off unless set: a bucket that is away then stops them.",
        example="10s",
        low="100ms",
        high="1h",
    ),
)

RUNNING = (
    Setting(
        name="boot_timeout",
        kind=Kind.DURATION,
        section=Section.RUNNING,
        effect="How long `run` waits for the store at its start; then it ends with status 13 and never starts the "
        "application on an empty database.",
        example="1m",
        default="5m",
        low="0s",
        high="24h",
    ),
    Setting(
        name="on_first_start",
        kind=Kind.COMMAND,
        section=Section.RUNNING,
        effect="Shell command run once, when neither a replica nor the database exists: seeding.",
        example="sqlite3 /data/app.db < schema.sql",
    ),
    Setting(
        name="before_start",
        kind=Kind.COMMAND,
        section=Section.RUNNING,
        effect="Shell command run at each start after the restore, before the application: migrations.",
        example="python manage.py migrate",
    ),
    Setting(
        name="stop_timeout",
        kind=Kind.DURATION,
        section=Section.RUNNING,
        effect="How long to wait for the application to end after a signal before it is killed.",
        example="20s",
        default="10s",
        low="0s",
        high="1h",
    ),
    Setting(
        name="flush_timeout",
        kind=Kind.DURATION,
        section=Section.RUNNING,
        effect="How long the final flush may take; when it fails the status is 75. Together with stop_timeout it must "
        "fit into the platform's grace period.",
        example="5s",
        default="15s",
        low="0s",
        high="1h",
    ),
    Setting(
        name="mirror_timeout",
        kind=Kind.DURATION,
        section=Section.RUNNING,
        effect="How long the end of `run` may wait for the mirrors, when everything is in the replica and the epoch is "
        "ended; what they lack then is said, and copied by the next start. It adds to flush_timeout.",
        example="10s",
        default="3s",
        low="0s",
        high="1h",
    ),
    Setting(
        name="ready_file",
        kind=Kind.PATH,
        section=Section.RUNNING,
        effect="A file created when the application was started and capture runs, removed at the end. Keep it on a "
        "folder that does not outlive the container.",
        example="/run/replicad/ready",
    ),
)

OBSERVING = (
    Setting(
        name="http_listen",
        kind=Kind.ADDRESS,
        section=Section.OBSERVING,
        effect="Address of /metrics, /healthz, /readyz, /status and the status page; off for none. Nothing there "
        "changes state. One that was set and is taken ends `run` with status 64; where the default is taken, it goes "
        "on without, and warns.",
        example="0.0.0.0:9090",
        default="127.0.0.1:9090",
    ),
    Setting(
        name="control_socket",
        kind=Kind.PATH,
        section=Section.OBSERVING,
        effect="Unix socket over which sync, snapshot, status and wait reach the running replicad.",
        example="/run/replicad/control.sock",
        default_shown="the first database's path and -replicad.sock",
    ),
    Setting(
        name="log_level",
        kind=Kind.CHOICE,
        section=Section.OBSERVING,
        effect="Least important log line that is written; debug also shows the traceback of an unexpected error.",
        example="debug",
        default="info",
        choices=("debug", "info", "warning", "error"),
    ),
    Setting(
        name="log_format",
        kind=Kind.CHOICE,
        section=Section.OBSERVING,
        effect="How log lines look: auto is console on a terminal and JSON elsewhere.",
        example="json",
        default="auto",
        choices=("auto", "console", "json"),
    ),
)
