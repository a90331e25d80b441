"""The page at `/`: the status, readable in a browser without anything fetched from elsewhere. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Content-Security-Policy of the page."""

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem }
:root { color-scheme: light dark }
table { border-collapse: collapse; margin: .5rem 0 1.5rem }
th, td { text-align: left; padding: .15rem 1.5rem .15rem 0; vertical-align: top; border-bottom: 1px solid #8884 }
th { font-weight: 500; opacity: .7 }
h1 small { font-weight: normal; opacity: .7 }
"""


def render(status: Mapping[str, object], *, ready: bool, reason: str) -> str:
    """Return the HTML of a status; lists of mappings become one table each."""
    plain = {name: value for name, value in status.items() if not _is_tables(value)}
    body = [f"<h1>replicad <small>{escape('ready' if ready else f'not ready: {reason}')}</small></h1>", _table(plain)]
    for name, value in status.items():
        if isinstance(value, Sequence) and _is_tables(value):
            body += [f"<h2>{escape(_title(name, row))}</h2>{_table(row)}" for row in value]
    body.append('<p><a href="/metrics">metrics</a> · <a href="/status">status as JSON</a></p>')
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="5">'
        f"<title>replicad</title><style>{_STYLE}</style>{''.join(body)}</html>"
    )


def _is_tables(value: object) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _title(name: str, row: Mapping[str, object]) -> str:
    return str(row.get("name", name))


def _table(row: Mapping[str, object]) -> str:
    lines = (
        f"<tr><th>{escape(name.replace('_', ' '))}</th><td>{_cell(value)}</td></tr>" for name, value in row.items()
    )
    return f"<table>{''.join(lines)}</table>"


def _cell(value: object) -> str:
    if isinstance(value, Mapping):
        return _table(value)
    if _is_tables(value) and isinstance(value, Sequence):
        return "".join(_table(row) for row in value)
    if value is None or value == []:
        return "–"  # noqa: RUF001 - a dash for nothing
    if isinstance(value, bool):
        return "yes" if value else "no"
    return escape(str(value))
