"""The list `mirrors`: second places for every replica, each a URL, with credentials of its own or without."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from replicad.config.model import MirrorSettings
from replicad.config.secret import Secret
from replicad.config.secret_file import read_secret
from replicad.errors import UsageError
from replicad.store.url import parse_url

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import yaml

    from replicad.config.model import DatabaseSettings

EXAMPLE = '["s3://second-bucket/app?region=eu-west-1", "file:///mnt/second"]'

_SECRETS = ("s3_access_key_id", "s3_secret_access_key", "s3_session_token")
_HINT = f"Example: {EXAMPLE}"


class _Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One item as written. A secret stands in a file or in a variable, never here: this may be a command line."""

    replica: str
    s3_access_key_id_file: str | None = None
    s3_access_key_id_variable: str | None = None
    s3_secret_access_key_file: str | None = None
    s3_secret_access_key_variable: str | None = None
    s3_session_token_file: str | None = None
    s3_session_token_variable: str | None = None


def mirrors_of(text: str, node: yaml.Node | None, where: str, environ: Mapping[str, str]) -> tuple[MirrorSettings, ...]:
    """Return the mirrors that a setting names.

    Args:
        text: the list in YAML, when `node` is None.
        node: the list as it stands in a file.
        where: how an error calls the place.
        environ: the environment variables of this process.

    Raises:
        UsageError: it is no list, or something in it is wrong; the message never holds a secret.
    """
    import yaml  # noqa: PLC0415 - only a list needs it, see sources.py

    try:
        listed = node or yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        listed = None
    items = [listed] if isinstance(listed, yaml.ScalarNode) else getattr(listed, "value", None)
    if not isinstance(items, list) or isinstance(listed, yaml.MappingNode):
        raise UsageError(where=where, expected="a list of replica URLs", found="no list", hint=_HINT)
    found = tuple(
        _mirror(_entry(item, f"mirrors[{number}] in {where}"), f"mirrors[{number}] in {where}", environ)
        for number, item in enumerate(items)
    )
    places = [parse_url(mirror.url) for mirror in found]
    if len(set(places)) < len(places):
        raise UsageError(where=where, expected="each place once", found="one of them again", hint="Remove one.")
    return found


def check_places(mirrors: Sequence[MirrorSettings], databases: Sequence[DatabaseSettings]) -> None:
    """Refuse a mirror that is the replica itself, and two databases that would share a folder in a mirror.

    For a daemon only: a restore from a mirror is asked for with that one as the replica.

    Raises:
        UsageError: there is one.
    """
    if not mirrors:
        return
    where = "mirrors"
    replicas = {parse_url(database.replica) for database in databases if database.replica}
    for mirror in mirrors:
        if parse_url(mirror.url) in replicas:
            hint = "A mirror in the same place protects against nothing."
            raise UsageError(where=where, expected="other places than `replica`", found=mirror.label, hint=hint)
    names = [database.name for database in databases]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        hint = "Give each its own `name`: in a mirror all databases lie beside one another."
        raise UsageError(where=where, expected="a name of its own for each database", found=f"{twice} twice", hint=hint)


def _entry(node: yaml.Node, where: str) -> _Entry:
    if type(node).__name__ == "ScalarNode":
        return _Entry(replica=node.value)
    pairs = node.value if type(node).__name__ == "MappingNode" else ()
    try:
        return msgspec.convert({str(key.value): value.value for key, value in pairs}, _Entry)
    except msgspec.ValidationError as error:
        names = ", ".join(_Entry.__struct_fields__)
        raise UsageError(where=where, expected=f"a URL, or some of {names}", found=str(error), hint=_HINT) from error


def _mirror(entry: _Entry, where: str, environ: Mapping[str, str]) -> MirrorSettings:
    parse_url(entry.replica, where=where)
    key_id, secret, token = (_secret(entry, name, where, environ) for name in _SECRETS)
    if (key_id is None) != (secret is None) or (token is not None and key_id is None):
        expected = "s3_access_key_id and s3_secret_access_key, both or none"
        raise UsageError(where=where, expected=expected, found="one of them", hint="A key has two parts.")
    return MirrorSettings(url=entry.replica, access_key_id=key_id, secret_access_key=secret, session_token=token)


def _secret(entry: _Entry, name: str, where: str, environ: Mapping[str, str]) -> Secret | None:
    path, variable = getattr(entry, f"{name}_file"), getattr(entry, f"{name}_variable")
    if path is not None and variable is not None:
        found = "both"
        raise UsageError(where=where, expected=f"a file or a variable for {name}", found=found, hint="Remove one.")
    if path is not None:
        return read_secret(path, f"{name}_file of {where}")
    if variable is None:
        return None
    if not environ.get(variable):
        raise UsageError(
            where=f"{name}_variable of {where}",
            expected="the name of an environment variable that is set",
            found=f"{variable}, which is not",
            hint="Set it, or take the entry out.",
        )
    return Secret(environ[variable])
