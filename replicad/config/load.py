"""From the sources to the settings in effect, or to one error that names the key and the place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from replicad.config.databases import missing, resolve
from replicad.config.mirrors import mirrors_of
from replicad.config.model import Settings
from replicad.config.parse import parse
from replicad.config.secret import SHOWN, Secret
from replicad.config.secret_file import read_secret
from replicad.config.setting import Kind
from replicad.config.settings import BY_NAME, SETTINGS
from replicad.config.sources import Given, gather
from replicad.config.units import format_size
from replicad.encryption.keys import parse_keys
from replicad.errors import UsageError
from replicad.store.url import without_secrets

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from replicad.config.model import DatabaseSettings

_INTO_DATABASES = ("config", "database", "replica", "name", "databases", "mirrors")
_SECRETS = tuple(setting.name for setting in SETTINGS if setting.is_secret)
_SECRET_FILES = tuple(f"{name}_file" for name in _SECRETS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Effective:
    """A setting in effect as `replicad config` shows it."""

    name: str
    value: str | None
    origin: str  # "default", "replicad.yml:3", "REPLICAD_NAME" or "--name"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The settings in effect, and where each came from."""

    settings: Settings
    given: Mapping[str, Given]

    def effective(self) -> list[Effective]:
        """Return every setting in the table's order; secrets as `***`."""
        return [self._effective(setting.name) for setting in SETTINGS]

    def _effective(self, name: str) -> Effective:
        given, setting = self.given.get(name), BY_NAME[name]
        if name == "databases" and given is not None:
            listed = ", ".join(
                f"{one.path} -> {without_secrets(one.replica)} ({one.name})" for one in self.settings.databases
            )
            return Effective(name=name, value=listed, origin=given.origin)
        if name == "mirrors" and given is not None:
            labels = ", ".join(mirror.label for mirror in self.settings.mirrors)
            return Effective(name=name, value=labels, origin=given.origin)
        if given is None:
            return Effective(name=name, value=self._computed(name), origin="default")
        if setting.is_secret:
            return Effective(name=name, value=SHOWN, origin=given.origin)
        value = without_secrets(given.text) if setting.kind is Kind.URL else given.text
        return Effective(name=name, value=value, origin=given.origin)

    def _computed(self, name: str) -> str | None:
        """Return a default that depends on other settings."""
        databases = self.settings.databases
        if name == "name" and len(databases) == 1:
            return databases[0].name
        if name == "control_socket" and self.settings.control_socket is not None:
            return str(self.settings.control_socket)
        return None


def load(
    *,
    flags: Mapping[str, str],
    environ: Mapping[str, str],
    required: Collection[str] = ("database", "replica"),
) -> Loaded:
    """Return the settings in effect.

    Args:
        flags: texts given on the command line, by setting name.
        environ: the environment variables of this process.
        required: the settings without a default that this command cannot do without.

    Raises:
        UsageError: something unknown, missing, contradictory or impossible.
    """
    given = gather(flags, environ)
    values: dict[str, object] = {
        setting.field: _value(setting.name, given)
        for setting in SETTINGS
        if setting.name not in (*_INTO_DATABASES, *_SECRETS, *_SECRET_FILES)
    }
    values |= {name: _secret(name, given) for name in _SECRETS}
    databases = resolve(given, required)
    values["databases"] = databases
    mirrors = given.get("mirrors")
    values["mirrors"] = mirrors_of(mirrors.text, mirrors.node, mirrors.where, environ) if mirrors else ()
    values["control_socket"] = values["control_socket"] or _socket_beside(databases)
    _check(values, given)
    for name in required:
        if name not in given and name not in ("database", "replica") and not values.get(BY_NAME[name].field):
            raise missing(name)
    return Loaded(settings=msgspec.convert(values, Settings, dec_hook=_as_it_is), given=given)


def _value(name: str, given: Mapping[str, Given]) -> object:
    one = given.get(name)
    return None if one is None else parse(BY_NAME[name], one.text, one.where)


def _secret(name: str, given: Mapping[str, Given]) -> Secret | None:
    """Return a secret from its value or its file, whichever stands in the higher source."""
    value, file = given.get(name), given.get(f"{name}_file")
    if file is None or (value is not None and value.rank > file.rank):
        return None if value is None else _as_secret(parse(BY_NAME[name], value.text, value.where))
    if value is not None and value.rank == file.rank:
        raise UsageError(where=file.where, expected=f"either {name} or {file.name}", found="both", hint="Remove one.")
    return read_secret(file.text, file.where)


def _as_secret(value: object) -> Secret:
    assert isinstance(value, Secret)  # noqa: S101 - what the row's kind says
    return value


def _socket_beside(databases: tuple[DatabaseSettings, ...]) -> Path | None:
    return databases[0].path.with_name(f"{databases[0].path.name}-replicad.sock") if databases else None


def _check(values: Mapping[str, object], given: Mapping[str, Given]) -> None:
    """Raise for values that are each possible and together are not."""
    smallest, largest = values["checkpoint_wal_bytes"], values["max_wal_bytes"]
    if isinstance(smallest, int) and isinstance(largest, int) and largest < smallest:
        raise UsageError(
            where=given["max_wal_bytes"].where,
            expected=f"at least checkpoint_wal_bytes ({format_size(smallest)})",
            found=format_size(largest),
            hint="Raise it, or lower checkpoint_wal_bytes.",
        )
    encryption = values["encryption_key"]
    if isinstance(encryption, Secret):
        source = given.get("encryption_key") or given["encryption_key_file"]
        parse_keys(encryption.reveal(), where=source.where)
    key, secret = values["s3_access_key_id"], values["s3_secret_access_key"]
    if (key is None) != (secret is None):
        has, lacks = ("s3_access_key_id", "s3_secret_access_key")[:: 1 if key else -1]
        raise UsageError(where=lacks, expected=f"a value, as {has} has one", found="nothing", hint="Set both or none.")
    if values["s3_session_token"] is not None and key is None:
        hint = "A session token comes with a key of its own."
        raise UsageError(
            where="s3_access_key_id", expected="a value beside s3_session_token", found="nothing", hint=hint
        )


def _as_it_is(kind: type, value: object) -> object:
    """Tell msgspec that paths and secrets are what they should be already."""
    if not isinstance(value, kind):
        raise NotImplementedError(kind)
    return value
