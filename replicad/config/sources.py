"""Where settings come from: flags over environment variables over one YAML file over defaults.

Each source is read into the same thing, the text of a setting and the place it stands in, so that one parser
and one error message serve them all. YAML scalars are taken as their text: `off` is not False here, and `1_000` is
an error, not a thousand.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

from replicad.config.setting import Kind
from replicad.config.settings import BY_NAME, SETTINGS
from replicad.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import yaml

PREFIX = "REPLICAD_"
NOT_SETTINGS = frozenset({"REPLICAD_SOAK", "REPLICAD_SEED", "REPLICAD_WRITE_GOLDEN"})
"""Variables that are no settings but switches of the test suite, which daemons under test inherit."""

# Kubernetes gives every container of a namespace variables for each service, named after it: a service called
# "replicad" or "replicad-metrics" must not stop the daemon.
_SERVICE_LINK = re.compile(
    r"REPLICAD(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)


class Rank(IntEnum):
    """The sources, lowest first."""

    DEFAULT = 0
    FILE = 1
    VARIABLE = 2
    FLAG = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """One setting as one source gives it."""

    name: str
    rank: Rank
    text: str  # "" for what only `node` holds
    node: yaml.Node | None = None  # a YAML list; None: `text` is all
    origin: str  # "default", "replicad.yml:3", "REPLICAD_NAME" or "--name"

    @property
    def where(self) -> str:
        """How an error calls the place."""
        return f"{self.name} ({self.origin})"


def gather(flags: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, Given]:
    """Return, per setting that has a value, what the highest source gives.

    Args:
        flags: texts given on the command line, by setting name.
        environ: the environment variables of this process.

    Raises:
        UsageError: an unknown or doubled key, an unknown variable, or a file that cannot be read.
    """
    given = {
        setting.name: Given(name=setting.name, rank=Rank.DEFAULT, text=setting.default, origin="default")
        for setting in SETTINGS
        if setting.default is not None
    }
    above = {one.name: one for one in (*_variables(environ), *_flags(flags))}
    if "config" in above:
        given |= {one.name: one for one in _file(Path(above["config"].text).expanduser(), above["config"])}
    return given | above


def unknown(what: str, name: str, known: Iterable[str], where: str) -> UsageError:
    """Return the error for a name that is not in the table, with the nearest one that is."""
    from difflib import get_close_matches  # noqa: PLC0415 - for a name that is wrong

    near = get_close_matches(name, list(known), n=1, cutoff=0.6)
    hint = f"Did you mean {near[0]}?" if near else "docs/configuration.md lists them all."
    return UsageError(where=f"{name} ({where})", expected=what, found="an unknown name", hint=hint)


def shape(node: yaml.Node) -> str:
    """Return what a YAML node is, in words."""
    return {"MappingNode": "a mapping", "SequenceNode": "a list"}.get(type(node).__name__, "one value")


def _flags(flags: Mapping[str, str]) -> Iterable[Given]:
    for name, text in flags.items():
        yield Given(name=name, rank=Rank.FLAG, text=text, origin=BY_NAME[name].flag or name)


def _variables(environ: Mapping[str, str]) -> Iterable[Given]:
    known = {setting.variable: setting for setting in SETTINGS}
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or variable in NOT_SETTINGS or _SERVICE_LINK.fullmatch(variable):
            continue
        if variable not in known:
            raise unknown("the variable of a setting", variable, known, "environment")
        # An empty variable is how compose files and CI systems spell "not set".
        if not text and not known[variable].may_be_empty:
            found = "an empty variable, which may be a secret that was lost on its way"
            raise UsageError(
                where=variable, expected="a value, or no variable", found=found, hint="Unset it or set it."
            )
        if text:
            yield Given(name=known[variable].name, rank=Rank.VARIABLE, text=text, origin=variable)


def _file(path: Path, config: Given) -> Iterable[Given]:
    # Imported here because most daemons are configured by variables alone and never need it.
    import yaml  # noqa: PLC0415

    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise UsageError(
            where=config.where,
            expected="a file that can be read",
            found=f"{path}: {error.strerror}",
            hint="See --config.",
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        found = getattr(error, "problem", None) or "what is no text in UTF-8"
        raise UsageError(where=where, expected="YAML", found=found, hint="See docs/configuration.md.") from error
    if root is None:
        return
    if not isinstance(root, yaml.MappingNode):
        raise UsageError(
            where=str(path), expected="`key: value` lines", found=shape(root), hint="See docs/configuration.md."
        )
    seen: set[str] = set()
    for key, value in root.value:
        one = _file_entry(path, key, value)
        if one.name in seen:
            raise UsageError(where=one.where, expected="each key once", found="it again", hint="Remove one of the two.")
        seen.add(one.name)
        yield one


def _values(node: yaml.Node, name: str, origin: str) -> Iterable[str]:
    for item in node.value:
        if shape(item) != "one value" or not item.value.strip():
            found = "nothing" if shape(item) == "one value" else shape(item)
            hint = f"Example: {BY_NAME[name].example}"
            raise UsageError(where=f"{name} ({origin})", expected="a list of texts", found=found, hint=hint)
        yield item.value


def _file_entry(path: Path, key: yaml.Node, value: yaml.Node) -> Given:
    name, origin = str(key.value), f"{path.name}:{key.start_mark.line + 1}"
    if name not in BY_NAME or name == "config":
        raise unknown("the name of a setting", name, BY_NAME.keys() - {"config"}, origin)
    if shape(value) == "one value" and (value.tag == "tag:yaml.org,2002:null" or not value.value):
        raise UsageError(
            where=f"{name} ({origin})",
            expected="a value",
            found="nothing",
            hint=f"Remove the key, or write for example {name}: {BY_NAME[name].example}",
        )
    if name in {"databases", "mirrors"}:
        return Given(name=name, rank=Rank.FILE, text="", node=value, origin=origin)
    if BY_NAME[name].kind is Kind.STATEMENTS and shape(value) == "a list":
        return Given(name=name, rank=Rank.FILE, text="\n;".join(_values(value, name, origin)), origin=origin)
    if shape(value) != "one value":
        hint = f"Example: {name}: {BY_NAME[name].example}"
        raise UsageError(where=f"{name} ({origin})", expected="one value", found=shape(value), hint=hint)
    return Given(name=name, rank=Rank.FILE, text=value.value, origin=origin)
