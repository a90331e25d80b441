"""How a store is talked to: limits, waits and credentials, whatever kind of store it is."""

from __future__ import annotations

from dataclasses import dataclass, field

MIN_PART_BYTES = 5 << 20
"""S3's smallest part of a multipart upload (the last one may be smaller)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOptions:
    """Limits of one open store; all its databases share them.

    Credentials left at None come from the platform: environment, shared files, container or machine roles, in
    botocore's order. They are kept out of `repr`.
    """

    connect_timeout_seconds: float = 5.0  # to look up the name and to connect
    read_timeout_seconds: float = 30.0  # without a single byte
    min_bytes_per_second: int = 16 << 10  # a transfer slower than this counts as hung
    attempts: int = 12  # of one operation, the first included
    retry_seconds: float = 60.0  # after this no new attempt is begun
    first_wait_seconds: float = 0.1  # before the second attempt; doubles, with jitter
    max_wait_seconds: float = 10.0
    concurrency: int = 8  # requests under way at once
    part_bytes: int = 8 << 20  # of a multipart upload; S3 takes 10 000 parts
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Refuse numbers that could not work; the settings that fill them have bounds and messages of their own."""
        if self.part_bytes < MIN_PART_BYTES:
            raise ValueError(f"part_bytes must be at least {MIN_PART_BYTES}, found {self.part_bytes}")
        for name in ("connect_timeout_seconds", "read_timeout_seconds", "min_bytes_per_second"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, found {getattr(self, name)}")
        for name in ("attempts", "concurrency"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")
