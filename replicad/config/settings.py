"""The table of settings: YAML keys, variables, flags, validation and documentation are made from it.

Every row has a kind (which fixes its unit), an effect and an example; every number has both bounds.
"""

from __future__ import annotations

from replicad.config.setting import Kind, Section, Setting

_REPLICA = (
    Setting(
        name="config",
        kind=Kind.PATH,
        section=Section.REPLICA,
        effect="The YAML file to read settings from. Without it no file is read.",
        example="/etc/replicad.yml",
    ),
    Setting(
        name="database",
        kind=Kind.PATH,
        section=Section.REPLICA,
        effect="The SQLite file to replicate. It need not exist yet.",
        example="/data/app.db",
    ),
    Setting(
        name="replica",
        kind=Kind.URL,
        section=Section.REPLICA,
        effect="Where the replica is kept; objects lie below REPLICA/NAME/. Credentials do not belong in here.",
        example="s3://bucket/prefix?endpoint=https://s3.example.com&region=auto",
    ),
    Setting(
        name="name",
        kind=Kind.TEXT,
        section=Section.REPLICA,
        effect="What the database is called in the replica, whatever its path on this disk.",
        example="app.db",
        default_shown="the file's name",
    ),
    Setting(
        name="databases",
        kind=Kind.DATABASES,
        section=Section.REPLICA,
        effect="Several databases instead of one: a list of paths, or of {path, replica, name}; replica and name are "
        "optional.",
        example="[{path: /data/app.db}, {path: /data/jobs.db, name: jobs}]",
    ),
)

_CAPTURE = (
    Setting(
        name="wal",
        kind=Kind.CHOICE,
        section=Section.CAPTURE,
        effect="What to do with a database that is not in WAL mode: convert switches it once, keep leaves it alone "
        "and captures by comparison at each change.",
        example="keep",
        default="convert",
        choices=("convert", "keep"),
    ),
    Setting(
        name="sync_interval",
        kind=Kind.DURATION,
        section=Section.CAPTURE,
        effect="Least time between two uploads under load: what is lost with the disk at most, and the number of PUT "
        "requests paid for. The first commit after a quiet time leaves at once.",
        example="5s",
        default="1s",
        low="0s",
        high="1h",
    ),
    Setting(
        name="poll_interval",
        kind=Kind.DURATION,
        section=Section.CAPTURE,
        effect="How often a database that is being written is looked at; an idle one is not polled at this rate.",
        example="10ms",
        default="4ms",
        low="1ms",
        high="1s",
    ),
    Setting(
        name="safety_poll_interval",
        kind=Kind.DURATION,
        section=Section.CAPTURE,
        effect="How often an idle database is looked at, for file systems that report no changes.",
        example="5s",
        default="1s",
        low="50ms",
        high="1h",
    ),
    Setting(
        name="checkpoint_wal_bytes",
        kind=Kind.SIZE,
        section=Section.CAPTURE,
        effect="Size of the WAL above which replicad checkpoints it. Larger: fewer, longer write stalls.",
        example="64MiB",
        default="16MiB",
        low="64KiB",
        high="16GiB",
    ),
    Setting(
        name="max_wal_bytes",
        kind=Kind.SIZE,
        section=Section.CAPTURE,
        effect="Size of the WAL above which it is let go when the store is away. What is then captured later is the "
        "state, no longer each transaction.",
        example="4GiB",
        default="1GiB",
        low="1MiB",
        high="1TiB",
    ),
)

_STORING = (
    Setting(
        name="segment_bytes",
        kind=Kind.SIZE,
        section=Section.STORING,
        effect="Largest segment held in memory; larger transactions are streamed.",
        example="32MiB",
        default="8MiB",
        low="256KiB",
        high="64MiB",  # pages of 512 bytes, read ahead four times over: no more transactions than a segment can have
    ),
    Setting(
        name="compression_level",
        kind=Kind.COUNT,
        section=Section.STORING,
        effect="Level of zstd for segments and snapshots: higher is smaller and costs more processor time.",
        example="6",
        default="1",
        low="-7",
        high="19",
    ),
    Setting(
        name="snapshot_interval",
        kind=Kind.DURATION,
        section=Section.STORING,
        effect="Longest time between two snapshots of a database that changes.",
        example="6h",
        default="24h",
        low="1s",
        high="365d",
    ),
    Setting(
        name="snapshot_log_ratio",
        kind=Kind.NUMBER,
        section=Section.STORING,
        effect="Take a snapshot when the segments since the last one outweigh the stored size of the database this "
        "many times: the bound on what a restore reads.",
        example="0.5",
        default="1.0",
        low="0.1",
        high="1000",
    ),
    Setting(
        name="upload_concurrency",
        kind=Kind.COUNT,
        section=Section.STORING,
        effect="Uploads at the same time, over all databases.",
        example="8",
        default="4",
        low="1",
        high="64",
    ),
)

_RESTORE = (
    Setting(
        name="integrity",
        kind=Kind.CHOICE,
        section=Section.RESTORE,
        effect="SQLite's own check after a restore, beside the proof by checksum that always runs.",
        example="quick",
        default="none",
        choices=("none", "quick", "full"),
    ),
    Setting(
        name="restore_concurrency",
        kind=Kind.COUNT,
        section=Section.RESTORE,
        effect="Downloads at the same time during a restore.",
        example="16",
        default="8",
        low="1",
        high="64",
    ),
    Setting(
        name="restore_memory_bytes",
        kind=Kind.SIZE,
        section=Section.RESTORE,
        effect="Bytes a restore holds in memory at most, whatever the size of the database.",
        example="64MiB",
        default="128MiB",
        low="32MiB",
        high="64GiB",
    ),
)

_STORE = (
    Setting(
        name="connect_timeout",
        kind=Kind.DURATION,
        section=Section.STORE,
        effect="How long to wait for a connection to the store.",
        example="2s",
        default="5s",
        low="50ms",
        high="5m",
    ),
    Setting(
        name="request_timeout",
        kind=Kind.DURATION,
        section=Section.STORE,
        effect="How long to wait for the store to go on sending within one request.",
        example="10s",
        default="30s",
        low="100ms",
        high="1h",
    ),
    Setting(
        name="retry_timeout",
        kind=Kind.DURATION,
        section=Section.STORE,
        effect="How long one operation is tried again before it fails; replication itself never gives up.",
        example="10s",
        default="60s",
        low="0s",
        high="1h",
    ),
    Setting(
        name="s3_access_key_id",
        kind=Kind.SECRET,
        section=Section.STORE,
        effect="Access key of the bucket.",
        example="AKIAIOSFODNN7EXAMPLE",
        default_shown="the platform's chain: AWS_* variables, profile, instance or pod role",
    ),
    Setting(
        name="s3_access_key_id_file",
        kind=Kind.PATH,
        section=Section.STORE,
        effect="A file that holds the access key.",
        example="/run/secrets/s3_access_key_id",
    ),
    Setting(
        name="s3_secret_access_key",
        kind=Kind.SECRET,
        section=Section.STORE,
        effect="Secret key of the bucket.",
        example="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        default_shown="as s3_access_key_id",
    ),
    Setting(
        name="s3_secret_access_key_file",
        kind=Kind.PATH,
        section=Section.STORE,
        effect="A file that holds the secret key.",
        example="/run/secrets/s3_secret_access_key",
    ),
    Setting(
        name="s3_session_token",
        kind=Kind.SECRET,
        section=Section.STORE,
        effect="Session token of temporary credentials.",
        example="IQoJb3JpZ2luX2VjEXAMPLE",
    ),
    Setting(
        name="s3_session_token_file",
        kind=Kind.PATH,
        section=Section.STORE,
        effect="A file that holds the session token.",
        example="/run/secrets/s3_session_token",
    ),
)

_OWNING = (
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

_RUNNING = (
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
        name="ready_file",
        kind=Kind.PATH,
        section=Section.RUNNING,
        effect="A file created when the application was started and capture runs, removed at the end. Keep it on a "
        "folder that does not outlive the container.",
        example="/run/replicad/ready",
    ),
)

_OBSERVING = (
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

SETTINGS: tuple[Setting, ...] = (
    *_REPLICA,
    *_CAPTURE,
    *_STORING,
    *_RESTORE,
    *_STORE,
    *_OWNING,
    *_RUNNING,
    *_OBSERVING,
)
BY_NAME = {setting.name: setting for setting in SETTINGS}
