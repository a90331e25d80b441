"""From the text of one setting to its value, within bounds. The same for YAML, variables, flags and defaults."""

from __future__ import annotations

import math
import re
from os.path import abspath
from pathlib import Path
from typing import TYPE_CHECKING

from replicad.config.mirrors import mirrors_of
from replicad.config.model import Address
from replicad.config.secret import Secret
from replicad.config.setting import Kind, Setting
from replicad.config.units import parse_duration, parse_size
from replicad.errors import UsageError
from replicad.plan.policy import Keep
from replicad.store.url import parse_url

if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_PORT = 65535
_MOST_KEPT = 1_000_000  # snapshots, or hours: a century
_LEAST_KEPT_SECONDS = 3600.0
_ADDRESS = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^\[\]:\s]+)):(?P<port>[0-9]{1,5})")
_EXPECTED = {
    Kind.DURATION: "a duration with its unit (ms, s, m, h, d, w)",
    Kind.SIZE: "a size (bytes, kB, MB, GB, TB, KiB, MiB, GiB, TiB)",
    Kind.COUNT: "a whole number",
    Kind.NUMBER: "a number",
    Kind.KEEP: "a count, or a duration with its unit (h, d, w),",
    Kind.PATH: "a path",
    Kind.TEXT: "text",
    Kind.COMMAND: "a shell command",
    Kind.URL: "a URL that begins with s3:// or file://",
    Kind.ADDRESS: "host:port, or off",
    Kind.SECRET: "a secret",
    Kind.DATABASES: "a list of databases",
    Kind.STATEMENTS: "SQL statements, each ended by a semicolon",
    Kind.MIRRORS: "a list of replica URLs",
}


def parse(setting: Setting, text: str, where: str) -> object:
    """Return the value that a text stands for.

    Args:
        setting: the row of the table.
        text: as the user wrote it.
        where: how an error calls the place, such as "sync_interval (replicad.yml:3)".

    Raises:
        UsageError: it is no value of this kind, or outside the bounds.
    """
    if setting.kind is Kind.URL:
        parse_url(text, where=where)  # raises in its own words, which never repeat a credential
        return text
    if setting.kind is Kind.MIRRORS:
        return mirrors_of(text, None, where, {})
    found = "a value that is not shown" if setting.is_secret else repr(text)
    try:
        value = _PARSERS[setting.kind](text)
    except ValueError:
        raise _refused(setting, where, found) from None
    if setting.choices and value not in setting.choices:
        raise _refused(setting, where, found)
    if setting.low is not None and setting.high is not None and isinstance(value, int | float):
        low, high = (_PARSERS[setting.kind](bound) for bound in (setting.low, setting.high))
        if not low <= value <= high:  # type: ignore[operator]  # both bounds are of the value's kind
            raise _refused(setting, where, found)
    return value


def expected(setting: Setting) -> str:
    """Return what a setting's value must be, in words."""
    if setting.choices:
        return f"one of {', '.join(setting.choices)}"
    words = _EXPECTED[setting.kind]
    return words if setting.low is None else f"{words} from {setting.low} to {setting.high}"


def _refused(setting: Setting, where: str, found: str) -> UsageError:
    hint = f"Example: {setting.example}" if not setting.is_secret else f"See `{setting.name}` in docs/configuration.md."
    return UsageError(where=where, expected=expected(setting), found=found, hint=hint)


def _count(text: str) -> int:
    if re.fullmatch(r"[+-]?[0-9]{1,18}", text.strip()) is None:
        raise ValueError(text)
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _keep(text: str) -> Keep:
    if text.strip().isdecimal():
        count = _count(text)
        if count > _MOST_KEPT:
            raise ValueError(text)
        return Keep(count=count)
    seconds = parse_duration(text)
    if not _LEAST_KEPT_SECONDS <= seconds <= _MOST_KEPT * _LEAST_KEPT_SECONDS:
        raise ValueError(text)
    return Keep(within_seconds=seconds)


def _text(text: str) -> str:
    if not text.strip() or "\0" in text:
        raise ValueError(text)
    return text


def _path(text: str) -> Path:
    return Path(abspath(Path(_text(text)).expanduser()))  # noqa: PTH100 - resolve() would follow symbolic links


def _address(text: str) -> Address | None:
    if text.strip().lower() == "off":
        return None
    match = _ADDRESS.fullmatch(text.strip())
    if match is None or int(match["port"]) > _MAX_PORT:
        raise ValueError(text)
    return Address(match["six"] or match["host"], int(match["port"]))


def _databases(text: str) -> object:
    raise ValueError(text)  # lists are read by databases.py, not as a text


def _statements(text: str) -> tuple[str, ...]:
    """Split at the semicolons that end a statement; the last one may go without."""
    from sqlite3 import complete_statement  # noqa: PLC0415 - few have any, and it opens no database

    statements: list[str] = []
    begun = ""
    for piece in f"{_text(text)}\n;".split(";")[:-1]:
        begun += f"{piece};"
        if complete_statement(begun):
            statements.append(begun.strip())
            begun = ""
    found = tuple(one for one in statements if one.strip("; \n\t"))
    if begun or not found:
        raise ValueError(text)
    return found


_PARSERS: dict[Kind, Callable[[str], object]] = {
    Kind.DURATION: parse_duration,
    Kind.SIZE: parse_size,
    Kind.COUNT: _count,
    Kind.NUMBER: _number,
    Kind.KEEP: _keep,
    Kind.CHOICE: str,
    Kind.PATH: _path,
    Kind.TEXT: _text,
    Kind.COMMAND: _text,
    Kind.URL: _text,
    Kind.ADDRESS: _address,
    Kind.SECRET: lambda text: Secret(_text(text)),
    Kind.DATABASES: _databases,
    Kind.STATEMENTS: _statements,
    Kind.MIRRORS: _databases,
}
