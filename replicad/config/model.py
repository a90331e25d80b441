"""The settings in effect, typed: what the rest of the program is handed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path  # noqa: TC003 - msgspec reads the annotations when it runs
from typing import Literal

import msgspec

from replicad.config.secret import Secret  # noqa: TC001 - likewise
from replicad.encryption.keys import EncryptionKey, parse_keys
from replicad.plan.policy import RULES, Keep, RetentionPolicy
from replicad.store.options import StoreOptions
from replicad.store.url import without_secrets


class Address(msgspec.Struct, frozen=True):
    """Where a TCP server listens; port 0 takes any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class DatabaseSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One database: the file, and where its replica is (objects lie below `REPLICA/NAME/`)."""

    path: Path  # absolute
    name: str
    replica: str  # URL


class MirrorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A second place for every replica, with credentials of its own or those of the replica."""

    url: str  # objects lie below URL/NAME/
    access_key_id: Secret | None = None
    secret_access_key: Secret | None = None
    session_token: Secret | None = None

    @property
    def label(self) -> str:
        """What metrics and log lines call it."""
        return without_secrets(self.url)

    def store_options(self, options: StoreOptions) -> StoreOptions:
        """Return how its store is opened, where the replica's is opened with `options`."""
        key, secret, token = self.access_key_id, self.secret_access_key, self.session_token
        if key is None or secret is None:
            return options
        return replace(
            options,
            access_key_id=key.reveal(),
            secret_access_key=secret.reveal(),
            session_token=token.reveal() if token else None,
        )


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting in effect. One field per row of the table, durations in seconds; see docs/configuration.md.

    The rows `config`, `database`, `replica`, `name`, `databases` become `databases`, and each `*_file` row
    becomes the secret it names.
    """

    databases: tuple[DatabaseSettings, ...]
    mirrors: tuple[MirrorSettings, ...]

    wal: Literal["convert", "keep"]
    sync_interval_seconds: float
    poll_interval_seconds: float
    safety_poll_interval_seconds: float
    checkpoint_wal_bytes: int
    max_wal_bytes: int

    segment_bytes: int
    compression_level: int
    snapshot_interval_seconds: float
    snapshot_log_ratio: float
    rollup_grace_seconds: float
    upload_concurrency: int

    integrity: Literal["none", "quick", "full"]
    restore_concurrency: int
    restore_memory_bytes: int

    retention: Literal["on", "off"]
    pitr_window_seconds: float
    keep_last: Keep
    keep_hourly: Keep
    keep_daily: Keep
    keep_weekly: Keep
    keep_monthly: Keep
    keep_yearly: Keep
    min_snapshots: int
    prune_grace_seconds: float
    retention_interval_seconds: float
    preserve_replaced_seconds: float

    connect_timeout_seconds: float
    request_timeout_seconds: float
    retry_timeout_seconds: float
    s3_access_key_id: Secret | None
    s3_secret_access_key: Secret | None
    s3_session_token: Secret | None
    encryption_key: Secret | None  # one or more

    drill_interval_seconds: float
    drill_folder: Path | None  # None: the folder of the database
    drill_timeout_seconds: float
    assertions: tuple[str, ...] | None
    assertion_timeout_seconds: float

    handover_poll_interval_seconds: float
    handover_timeout_seconds: float
    on_handover: Literal["freeze", "stop"]
    when_fenced: Literal["freeze", "stop"]
    fencing: Literal["auto", "required", "advisory"]
    max_lag_seconds: float | None  # None: no bound

    boot_timeout_seconds: float
    on_first_start: str | None
    before_start: str | None
    stop_timeout_seconds: float
    flush_timeout_seconds: float
    mirror_timeout_seconds: float
    ready_file: Path | None

    http_listen: Address | None  # None: off
    control_socket: Path | None  # None: there is no database to name it after
    log_level: Literal["debug", "info", "warning", "error"]
    log_format: Literal["auto", "console", "json"]

    @property
    def encryption_keys(self) -> tuple[EncryptionKey, ...]:
        """The keys of the replicas, the one that encrypts first; none: they are not encrypted."""
        return parse_keys(self.encryption_key.reveal()) if self.encryption_key else ()

    @property
    def retention_policy(self) -> RetentionPolicy:
        """What retention promises with these settings."""
        return RetentionPolicy(
            pitr_window_seconds=self.pitr_window_seconds,
            grace_seconds=self.prune_grace_seconds,
            min_snapshots=self.min_snapshots,
            keep={rule: getattr(self, f"keep_{rule}") for rule in RULES},
        )

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """Every credential and key among the settings: what must never be shown."""
        held = [self.s3_access_key_id, self.s3_secret_access_key, self.s3_session_token, self.encryption_key]
        for mirror in self.mirrors:
            held += [mirror.access_key_id, mirror.secret_access_key, mirror.session_token]
        return tuple(secret for secret in held if secret is not None)

    def store_options(self, *, concurrency: int) -> StoreOptions:
        """Return how a store is opened with these settings; `concurrency` is the requests under way at once."""
        key, secret, token = self.s3_access_key_id, self.s3_secret_access_key, self.s3_session_token
        return StoreOptions(
            connect_timeout_seconds=self.connect_timeout_seconds,
            read_timeout_seconds=self.request_timeout_seconds,
            retry_seconds=self.retry_timeout_seconds,
            concurrency=concurrency,
            access_key_id=key.reveal() if key else None,
            secret_access_key=secret.reveal() if secret else None,
            session_token=token.reveal() if token else None,
        )
