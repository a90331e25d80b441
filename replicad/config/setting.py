"""What a row of the table of settings holds, and the names each row goes by."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """How the text of a setting is read; the value is what help texts call it."""

    DURATION = "duration"
    SIZE = "size"
    COUNT = "count"
    NUMBER = "number"
    KEEP = "count or duration"
    CHOICE = "choice"
    PATH = "path"
    TEXT = "text"
    COMMAND = "command"
    URL = "url"
    ADDRESS = "address"
    SECRET = "secret"  # noqa: S105 - the name of a kind
    DATABASES = "databases"
    STATEMENTS = "SQL statements"
    MIRRORS = "mirrors"


class Section(StrEnum):
    """A heading of docs/configuration.md and of `--help`."""

    REPLICA = "What is replicated, and where to"
    CAPTURE = "Capture"
    STORING = "Segments and snapshots"
    RESTORE = "Restore"
    KEEPING = "Retention"
    STORE = "Reaching the store"
    PROVING = "Drills"
    OWNING = "Ownership and handover"
    RUNNING = "Running"
    OBSERVING = "Observing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting. `default`, `low`, `high` and `example` are texts as a user would write them."""

    name: str
    kind: Kind
    section: Section
    effect: str  # one or two sentences; the first word is capital, the last sign a full stop
    example: str
    default: str | None = None  # None: unset
    default_shown: str = "unset"  # what the documentation says where there is no fixed default
    low: str | None = None
    high: str | None = None
    choices: tuple[str, ...] = ()
    may_be_empty: bool = True  # an empty variable counts as not set

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"REPLICAD_{self.name.upper()}"

    @property
    def flag(self) -> str | None:
        """The command-line flag; secrets have none, because every process can read a command line."""
        return None if self.is_secret else f"--{self.name.replace('_', '-')}"

    @property
    def field(self) -> str:
        """The attribute of `Settings`: the name, with its unit where the text carries it."""
        return f"{self.name}_seconds" if self.kind is Kind.DURATION else self.name

    @property
    def is_secret(self) -> bool:
        """Whether the value must never be shown."""
        return self.kind is Kind.SECRET

    @property
    def default_text(self) -> str:
        """The default as the documentation shows it."""
        return self.default_shown if self.default is None else self.default

    @property
    def bounds_text(self) -> str:
        """The values allowed, as the documentation shows them."""
        if self.choices:
            return ", ".join(self.choices)
        return f"{self.low} to {self.high}" if self.low is not None else ""
