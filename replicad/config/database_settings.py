"""The settings of what is replicated and how it is captured, stored and restored: rows of the table in settings.py."""

from __future__ import annotations

from replicad.config.setting import Kind, Section, Setting

REPLICA = (
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
    Setting(
        name="mirrors",
        kind=Kind.MIRRORS,
        section=Section.REPLICA,
        effect="Second places for every replica, kept up to date behind it: a list of URLs, or of {replica, "
        "s3_access_key_id_file, s3_secret_access_key_file}, or with `_variable` instead of `_file` and the name of an "
        "environment variable. Without a key of its own a mirror is reached with the replica's. None of them holds "
        "anything back.",
        example='["s3://second-bucket/app?region=eu-west-1", "file:///mnt/second"]',
    ),
)

CAPTURE = (
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

STORING = (
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
        name="rollup_grace",
        kind=Kind.DURATION,
        section=Section.STORING,
        effect="How long small segments stay behind the roll-up that holds the same transactions. Longer than a "
        "restore takes: one that finds them gone has to plan again.",
        example="4h",
        default="1h",
        low="1s",
        high="7d",
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

RESTORE = (
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
        example="8",
        default="16",
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

STORE = (
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
    Setting(
        name="encryption_key",
        kind=Kind.SECRET,
        section=Section.STORE,
        effect="Key that everything is encrypted with before it is stored, from `replicad key new`. Several, with"
        " spaces between them: the first encrypts, all decrypt. An empty variable is refused.",
        example="replicad-key-1-EXAMPLE",  # no key: a whole one would be used by somebody
        default_shown="unset: nothing is encrypted",
        may_be_empty=False,
    ),
    Setting(
        name="encryption_key_file",
        kind=Kind.PATH,
        section=Section.STORE,
        effect="A file that holds the key, or several: one on each line, the newest first.",
        example="/run/secrets/replicad_key",
        may_be_empty=False,
    ),
)
