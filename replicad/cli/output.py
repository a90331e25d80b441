"""How values look to people: times, sizes, tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_STEP = 1024
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def columns(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Return rows as aligned columns under a head; the columns numbered in `right` are aligned to the right.

    Plain text on purpose, on a terminal too: it can be piped into grep and cut.
    """
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[number]) for line in lines) for number in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def size(size_bytes: int) -> str:
    """Return a size for people, to one decimal: "1.5 MiB"."""
    value = float(size_bytes)
    for unit in _UNITS:
        if value < _STEP or unit == _UNITS[-1]:
            return f"{int(value)} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= _STEP
    raise AssertionError  # the last unit takes everything


def outline(value: Mapping[str, object], *, indent: int = 0) -> str:
    """Return nested mappings as indented `key: value` lines; a list of mappings as one block each."""
    lines = []
    for key, inner in value.items():
        name = f"{' ' * indent}{key.replace('_', ' ')}:"
        if isinstance(inner, dict):
            lines += [name, outline(inner, indent=indent + 2)]
        elif isinstance(inner, list | tuple) and any(isinstance(row, dict) for row in inner):
            for row in inner:
                lines += [name, outline(row, indent=indent + 2)]
        else:
            lines.append(f"{name} {_plain(inner)}")
    return "\n".join(lines)


def _plain(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
