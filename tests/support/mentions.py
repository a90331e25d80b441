"""What a document or a deployment file names: commands with their flags, variables, metrics; and what really exists."""

from __future__ import annotations

import ast
import re
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import click

from replicad.cli.main import COMMANDS, cli
from replicad.config import SETTINGS
from replicad.observe import events
from replicad.observe.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

ROOT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`]+)`")
_PROGRAM = re.compile(r"(?:^|[\s\"'/(])replicad (?=[a-z-])")
_SHELL_ENDS = re.compile(r"\s(?:#|&&|\|\|?|;|>).*$")


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLine:
    """A use of the program: `words` begin behind its name; what is behind `--` belongs to the application."""

    words: tuple[str, ...]

    @property
    def command(self) -> str:
        """The command's name."""
        return self.words[0]

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags, without their values."""
        ours = self.words[: self.words.index("--")] if "--" in self.words else self.words
        return tuple(word.partition("=")[0] for word in ours if word.startswith("-"))


def fenced(text: str, language: str) -> list[str]:
    """Return the bodies of a Markdown text's code blocks in one language, in order."""
    return [match["body"] for match in _FENCE.finditer(text) if match["language"] == language]


def code_spans(text: str) -> list[str]:
    """Return what stands between single backticks, outside of code blocks."""
    return _SPAN.findall(_FENCE.sub("", text))


def command_lines(lines: Iterable[str]) -> Iterator[CommandLine]:
    """Find uses of the program in lines of shell; `replicad` followed by a word counts as one."""
    for line in lines:
        for match in _PROGRAM.finditer(line):
            rest = _SHELL_ENDS.sub("", line[match.end() :])
            yield CommandLine(words=tuple(_words(rest)))


def markdown_command_lines(text: str) -> list[CommandLine]:
    """Find uses of the program in the code of a Markdown text."""
    blocks = [body for language in ("sh", "console") for body in fenced(text, language)]
    lines = [line for body in blocks for line in body.splitlines()]
    spans = [span for span in code_spans(text) if span.startswith("replicad ")]
    return list(command_lines(lines + spans))


def command_line(words: Sequence[str]) -> CommandLine | None:
    """Return the use of the program in an exec-form list such as an ENTRYPOINT; None when it is another program."""
    if not words or Path(words[0]).name != "replicad":
        return None
    return CommandLine(words=tuple(words[1:]))


@cache
def flags_of(command: str) -> frozenset[str]:
    """Return every flag that a command really has."""
    found = cli.get_command(click.Context(cli), command)
    assert found is not None, command
    options = [parameter for parameter in found.params if isinstance(parameter, click.Option)]
    return frozenset({"--help", "-h"}.union(*(option.opts + option.secondary_opts for option in options)))


def complaint(line: CommandLine) -> str | None:
    """Return what is wrong with a use of the program, None when it could be run."""
    if line.command not in COMMANDS:
        return f"no command {line.command!r}"
    unknown = [flag for flag in line.flags if flag not in flags_of(line.command)]
    return f"`replicad {line.command}` has no {', '.join(unknown)}" if unknown else None


def variables(text: str) -> set[str]:
    """Return the names of replicad's variables in a text; a name that ends in `_` or `*` stands for several."""
    return {found for found in re.findall(r"\bREPLICAD_[A-Z0-9_]+", text) if not found.endswith("_")}


def known_variables() -> set[str]:
    """Return the variables that exist."""
    return {setting.variable for setting in SETTINGS}


def metrics(text: str) -> set[str]:
    """Return the names of replicad's metrics in a text."""
    return set(re.findall(r"\breplicad_[a-z0-9_]*[a-z0-9]\b", text))


@cache
def known_metrics() -> frozenset[str]:
    """Return the names of all series that a scrape can show."""
    everything = Metrics(version="0", wall_seconds=lambda: 0.0)
    everything.for_database("app.db")
    body, _ = everything.render()
    found = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", body.decode(), re.MULTILINE):
        found |= {f"{name}{end}" for end in ("_bucket", "_sum", "_count")} if kind == "histogram" else set()
        found.add(name)
    return frozenset(found)


def known_events() -> set[str]:
    """Return the names of all log events."""
    return {value for name, value in vars(events).items() if name.isupper() and isinstance(value, str)}


def logged_events() -> set[str]:
    """Return the names of the events that some module of the package logs, and not only declares."""
    declared = {name: value for name, value in vars(events).items() if name.isupper() and isinstance(value, str)}
    used: set[str] = set()
    for path in (ROOT / "replicad").rglob("*.py"):
        if path != Path(events.__file__ or ""):
            used |= _events_used(ast.parse(path.read_text(encoding="utf-8")))
    return {value for name, value in declared.items() if name in used}


def headings(text: str) -> set[str]:
    """Return the headings of a Markdown text."""
    return set(re.findall(r"^#+ (.+)$", _FENCE.sub("", text), re.MULTILINE))


def _events_used(module: ast.Module) -> set[str]:
    """Return the constants that are passed on: `events.NAME`, or NAME imported from there and read."""
    imported = {
        alias.name
        for node in ast.walk(module)
        if isinstance(node, ast.ImportFrom) and node.module == events.__name__
        for alias in node.names
    }
    attributes = {
        node.attr
        for node in ast.walk(module)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "events"
    }
    return attributes | {node.id for node in ast.walk(module) if isinstance(node, ast.Name) and node.id in imported}


def _words(shell: str) -> list[str]:
    try:
        return shlex.split(shell)
    except ValueError:  # a quotation that goes on in the next line: flags before it are all that is looked at
        return shell.split()
