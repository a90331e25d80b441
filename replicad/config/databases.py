"""Which databases: one `database`, or the list `databases`, each with its name and its replica."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from replicad.config.model import DatabaseSettings
from replicad.config.parse import parse
from replicad.config.settings import BY_NAME
from replicad.config.sources import Given, Rank, shape, unknown
from replicad.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import yaml

_MAX_NAME_BYTES = 200  # of a key's 1024: what replicad itself puts behind a name is at most 118


class _Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One item of `databases` as written."""

    path: str
    replica: str | None = None
    name: str | None = None


def resolve(given: Mapping[str, Given], required: Collection[str]) -> tuple[DatabaseSettings, ...]:
    """Return the databases in effect; none when none is given and none is required.

    When the list stands in a lower source than `database` or `name`, these choose from it: with a list in
    the file, `--name jobs` is the database that the list calls so.

    Args:
        given: the settings, by name.
        required: of "database" and "replica", those that must be given. A `replica` neither given nor
            required is "".

    Raises:
        UsageError: a missing, doubled or contradictory value.
    """
    entries = _entries(given)
    if not entries and "database" in required:
        raise missing("database")
    databases = tuple(_database(entry, where, given, required) for entry, where in entries)
    for attributes, what in ((("path",), "path"), (("replica", "name"), "name")):
        seen = set()
        for database in databases:
            identity = tuple(getattr(database, attribute) for attribute in attributes)
            if identity in seen:
                found = f"{identity[-1]} twice"
                hint = "Give each its own `name`." if what == "name" else "Remove one of the two."
                raise UsageError(where="databases", expected=f"a {what} of its own for each", found=found, hint=hint)
            seen.add(identity)
    return databases


def missing(name: str) -> UsageError:
    """Return the error for a setting that has no default and was not given."""
    setting = BY_NAME[name]
    return UsageError(
        where=name,
        expected="a value",
        found="nothing",
        hint=f"Set {setting.variable}, {setting.flag}, or `{name}:` in the file, for example {setting.example}",
    )


def _entries(given: Mapping[str, Given]) -> list[tuple[_Entry, str]]:
    """Return the items of the list, or the single database as one, each with the place it stands in."""
    listed, single, name = (given.get(key) for key in ("databases", "database", "name"))
    if listed is None:
        if single is not None:
            return [(_Entry(path=single.text, name=name.text if name else None), single.where)]
        return [(_Entry(path=name.text, name=name.text), name.where)] if name else []
    for other in (single, name):
        if other is not None and other.rank == listed.rank:
            raise UsageError(
                where=other.where,
                expected="either `databases`, or `database` with its `name`",
                found="both",
                hint=f"`databases` stands in {listed.origin}.",
            )
    entries = [_entry(item, where) for item, where in _items(listed)]
    if single is not None and single.rank > listed.rank:
        return [_chosen_by_path(entries, single, name if name and name.rank > listed.rank else None)]
    if name is not None and name.rank > listed.rank:
        return [_chosen_by_name(entries, name)]
    return entries


def _chosen_by_path(entries: list[tuple[_Entry, str]], single: Given, name: Given | None) -> tuple[_Entry, str]:
    path = parse(BY_NAME["database"], single.text, single.where)
    for entry, where in entries:
        if parse(BY_NAME["database"], entry.path, where) == path:
            return (msgspec.structs.replace(entry, name=name.text) if name else entry), where
    return _Entry(path=single.text, name=name.text if name else None), single.where


def _chosen_by_name(entries: list[tuple[_Entry, str]], name: Given) -> tuple[_Entry, str]:
    names = {entry.name or Path(entry.path).name: (entry, where) for entry, where in entries}
    if name.text not in names:
        raise unknown(f"one of {', '.join(names)}", name.text, names, name.origin)
    return names[name.text]


def _items(listed: Given) -> list[tuple[yaml.Node, str]]:
    import yaml  # noqa: PLC0415 - only a list needs it, see sources.py

    try:
        node = listed.node or yaml.compose(listed.text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        node = None
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        found = "no list" if listed.node else repr(listed.text)
        hint = f"Example: {BY_NAME['databases'].example}"
        raise UsageError(where=listed.where, expected="a list of databases", found=found, hint=hint)
    in_file = listed.rank is Rank.FILE
    file = listed.origin.rpartition(":")[0]
    return [
        (item, f"databases[{number}] ({f'{file}:{item.start_mark.line + 1}' if in_file else listed.origin})")
        for number, item in enumerate(node.value)
    ]


def _entry(node: yaml.Node, where: str) -> tuple[_Entry, str]:
    if shape(node) == "one value":
        return _Entry(path=node.value), where
    fields: dict[str, object] = {}
    for key, value in node.value if shape(node) == "a mapping" else ():
        if key.value not in _Entry.__struct_fields__:
            raise unknown("one of path, replica, name", str(key.value), _Entry.__struct_fields__, where)
        fields[key.value] = value.value if value.tag != "tag:yaml.org,2002:null" else None
    try:
        return msgspec.convert(fields, _Entry), where
    except msgspec.ValidationError as error:
        hint = "Example: {path: /data/app.db, name: app}"
        raise UsageError(where=where, expected="path, replica, name", found=str(error), hint=hint) from error


def _database(entry: _Entry, where: str, given: Mapping[str, Given], required: Collection[str]) -> DatabaseSettings:
    path = parse(BY_NAME["database"], entry.path, where)
    assert isinstance(path, Path)  # noqa: S101 - what the row's kind says
    base = given.get("replica")
    replica = ""
    if entry.replica is not None:
        replica = str(parse(BY_NAME["replica"], entry.replica, where))
    elif base is not None:
        replica = str(parse(BY_NAME["replica"], base.text, base.where))
    elif "replica" in required:
        raise missing("replica")
    return DatabaseSettings(path=path, name=_name(entry.name or path.name, where), replica=replica)


def _name(name: str, where: str) -> str:
    """Return the name if it can be one folder of a key."""
    harmless = name == name.strip() and name.isprintable() and "/" not in name and name not in {"", ".", ".."}
    if not harmless or len(name.encode()) > _MAX_NAME_BYTES:
        raise UsageError(
            where=where,
            expected=f"up to {_MAX_NAME_BYTES} bytes without slashes, control characters and spaces at the ends",
            found=repr(name),
            hint="Set `name`.",
        )
    return name
