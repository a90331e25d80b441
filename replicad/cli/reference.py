"""Write docs/configuration.md, docs/cli.md and docs/metrics.md: `python -m replicad.cli.reference`.

The tables they are made from are the ones the program runs on; a test fails when a file is not up to date.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from replicad.cli.flags import SettingOption
from replicad.cli.main import COMMANDS, cli
from replicad.config import SETTINGS, Section
from replicad.observe import events
from replicad.observe.exposition import SNAPSHOT_AGE, Exposition
from replicad.observe.metrics import DATABASE_ROWS, Metrics

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from replicad.config import Setting

_GENERATED = "<!-- Made by `python -m replicad.cli.reference` (make docs); do not edit. -->\n"

_EXIT_CODES = (
    (0, "Done."),
    (1, "Another error; the message says which."),
    (2, "Verification mismatch: something stored is damaged, missing or not what it should be."),
    (10, "No backup exists: the listing was read and holds no history."),
    (11, "The replica is owned by another instance, or another replicad on this machine has the database."),
    (12, "Wrong encryption key."),
    (13, "The store could not be reached, or refused."),
    (14, "The target lies outside the restorable window, or the history has a gap there."),
    (64, "Usage: an unknown, missing or impossible flag, variable or key."),
    (75, "The final flush failed: the message says what did not become durable."),
    (126, "`run`: the application's command cannot be executed."),
    (127, "`run`: the application's command was not found."),
    (130, "Interrupted by Ctrl-C."),
    (143, "`run`: stopped by SIGTERM before the application was started."),
)

_ABOUT_SETTINGS = """\
Every setting can be given as a flag, as an environment variable, or as a key of one YAML file (`--config`,
`REPLICAD_CONFIG`). Flags win over variables, variables over the file, the file over defaults. An unknown key
or `REPLICAD_*` variable, a missing value and an impossible number are errors that name the key and the place
(exit code 64). An empty variable counts as not set. `replicad config` shows what is in effect and where it
comes from.

- **Durations** carry a unit: `500ms`, `1s`, `5m`, `1h30m`, `24h`, `7d`.
- **Sizes** are bytes or carry a unit: `64MiB`, `64MB`, `4096`.
- **Paths** may begin with `~`; relative ones start at the working directory.
- **Secrets** have no flag, because every process of the machine can read a command line; each has a `_file`
  twin for platforms that mount secrets as files. No output of replicad shows one.
- **Replica URLs**: `s3://bucket/prefix?endpoint=https://…&region=…&path_style=true|false` or
  `file:///absolute/folder`. One more key, `creates=generation-match`, is for Google Cloud Storage under another host
  name than its own, `creates=if-none-match` for a host of that name that is none; no others are known.

```yaml
# /etc/replicad.yml
database: /data/app.db
replica: s3://bucket/app?region=eu-central-1
sync_interval: 2s
before_start: python manage.py migrate
```

Several databases share every other setting. With a list in the file, `--database` or `--name` chooses one of
them for commands that work on a single one:

```yaml
replica: s3://bucket/app
databases:
  - /data/app.db
  - path: /data/jobs.db
    name: jobs
  - path: /data/audit.db
    replica: s3://audit-bucket/app
```
"""

_ABOUT_COMMANDS = """\
Results go to standard output; messages, log lines and progress to standard error. With `--json` a result is
one JSON document, and an error is one JSON object with `error`, `message` and `exit_code` on standard error.
The flags of settings are described in [configuration.md](configuration.md).
"""

_ABOUT_EVENTS = """
and the standard `process_*` metrics (CPU, memory, descriptors).

## Log events

Every log line has `timestamp` (UTC, ms), `level` and `event`; the names below are never changed.

| event | meaning |
|---|---|"""


def documents() -> Mapping[str, str]:
    """Return the text of each generated file, by its name below docs/."""
    return {
        "configuration.md": "\n".join(_configuration()) + "\n",
        "cli.md": "\n".join(_command_line()) + "\n",
        "metrics.md": "\n".join(_metrics()) + "\n",
    }


def _configuration() -> Iterator[str]:
    yield f"# Configuration\n\n{_GENERATED}"
    yield _ABOUT_SETTINGS
    for section in Section:
        yield f"## {section}\n"
        for setting in SETTINGS:
            if setting.section is section:
                yield from _setting(setting)


def _setting(setting: Setting) -> Iterator[str]:
    yield f"### `{setting.name}`\n"
    yield f"{setting.effect}\n"
    yield f"| {setting.kind} | |\n|---|---|"
    default = setting.default_text if setting.default is None else f"`{setting.default_text}`"
    yield f"| default | {_cell(default)} |"
    if setting.bounds_text:
        yield f"| allowed | {setting.bounds_text} |"
    yield f"| flag | {f'`{setting.flag}`' if setting.flag else 'none'} |"
    yield f"| variable | `{setting.variable}` |"
    yield f"| example | `{_cell(setting.example)}` |\n"


def _command_line() -> Iterator[str]:
    yield f"# Command line\n\n{_GENERATED}"
    yield _ABOUT_COMMANDS
    yield "## Exit codes\n\n| code | meaning |\n|---|---|"
    yield from (f"| {code} | {meaning} |" for code, meaning in _EXIT_CODES)
    yield "\n`replicad run` otherwise passes on the application's own status, 128 + n when signal n ended it.\n"
    context = click.Context(cli, info_name="replicad")
    for name in COMMANDS:
        found = cli.get_command(context, name)
        if found is not None:
            yield from _command(name, found)


def _command(name: str, found: click.Command) -> Iterator[str]:
    context = click.Context(found, info_name=f"replicad {name}", help_option_names=["-h", "--help"])
    usage = " ".join(found.collect_usage_pieces(context))
    yield f"## `replicad {name}`\n\n```\nreplicad {name} {usage}\n```\n"
    yield f"{_paragraphs(found.help or '')}\n"
    yield "| option | effect |\n|---|---|"
    settings = []
    for parameter in found.get_params(context):
        if isinstance(parameter, SettingOption):
            settings.append(f"[`{parameter.setting.flag}`](configuration.md#{parameter.setting.name})")
            continue
        record = parameter.get_help_record(context)
        if record is not None and isinstance(parameter, click.Option):
            yield f"| `{_cell(record[0])}` | {_cell(record[1])} |"
    if settings:
        yield f"\nSettings: {', '.join(settings)}."
    if found.epilog:
        examples = found.epilog.partition("Examples:\n")[2]
        yield "\n```sh\n" + "\n".join(line.strip() for line in examples.splitlines()) + "\n```\n"


def _metrics() -> Iterator[str]:
    yield f"# Metrics and log events\n\n{_GENERATED}"
    yield "## Metrics\n\nServed at `/metrics` of `http_listen`.\n"
    yield "### Per database, with the label `database`\n\n| name | type | meaning |\n|---|---|---|"
    for row in DATABASE_ROWS:
        label = f" By `{row.label}`." if row.label else ""
        yield f"| `{row.name}` | {row.kind} | {row.help}{label} |"
    families = Exposition(Metrics(version="", wall_seconds=float)).collect()
    rest = {(f"{one.name}_total" if one.type == "counter" else one.name): one for one in families}
    age = rest.pop(SNAPSHOT_AGE)
    yield f"| `{SNAPSHOT_AGE}` | {age.type} | {age.documentation} |"
    yield "\n### Per process\n\n| name | type | meaning |\n|---|---|---|"
    for name in sorted(rest.keys() - {row.name for row in DATABASE_ROWS}):
        yield f"| `{name}` | {rest[name].type} | {rest[name].documentation} |"
    yield _ABOUT_EVENTS
    source = Path(events.__file__).read_text(encoding="utf-8")
    for name, comment in re.findall(r'^[A-Z_]+: Final = "([a-z_]+)"(?:  # (.*))?$', source, re.MULTILINE):
        yield f"| `{name}` | {_cell(comment)} |"


def _paragraphs(text: str) -> str:
    paragraphs = (" ".join(part.split()) for part in text.replace("\b", "").split("\n\n"))
    return "\n\n".join(paragraphs)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def main() -> None:
    """Write the files below docs/ of the working directory, or below the folder given."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in documents().items():
        (folder / name).write_text(text, encoding="utf-8")
        click.echo(folder / name)


if __name__ == "__main__":
    main()
