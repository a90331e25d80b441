"""What every command has: flags made from the table of settings, --json, --debug, and help that says all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from replicad.cli.invocation import Invocation
from replicad.config.setting import Kind, Section, Setting
from replicad.config.settings import BY_NAME, SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
"""How every command shows its help."""

FLAGS = "replicad.flags"
"""Where in `Context.meta` the texts of the setting flags are collected."""


class SettingOption(click.Option):
    """A flag that gives a setting; its text is collected in the context and validated with the other sources."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        flag = setting.flag
        if flag is None:
            raise ValueError(setting.name)
        super().__init__(
            [flag],
            metavar=f"[{'|'.join(setting.choices)}]" if setting.choices else setting.kind.upper(),
            help=describe(setting),
            expose_value=False,
            callback=_collect,
            type=click.Path() if setting.kind is Kind.PATH else str,
            shell_complete=_complete_choice if setting.choices else None,
        )


class Command(click.Command):
    """A command whose help groups its options: its own first, then the settings by section."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, grouped."""
        groups: dict[str, list[tuple[str, str]]] = {"Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                section = parameter.setting.section if isinstance(parameter, SettingOption) else "Options"
                groups.setdefault(section, []).append(record)
        for section, records in groups.items():
            with formatter.section(section):
                formatter.write_dl(records)


def describe(setting: Setting) -> str:
    """Return a flag's help: effect, default, bounds, variable and example."""
    facts = [f"default: {setting.default_text}"]
    if setting.low is not None:
        facts.append(setting.bounds_text)
    facts += [f"variable: {setting.variable}", f"example: {setting.example}"]
    return f"{setting.effect} [{'; '.join(facts)}]"


def command(
    *, settings: Sequence[Section | str], examples: Sequence[str], required: Collection[str] = ("database", "replica")
) -> Callable[[Callable[..., int | None]], Command]:
    """Make a command of a function that takes an `Invocation` and the command's own options.

    Args:
        settings: the settings that are flags of this command, by section or by name, in the order of the help.
        examples: command lines for the help.
        required: the settings that the command cannot do without.
    """

    def decorate(function: Callable[..., int | None]) -> Command:
        @click.pass_context
        def start(context: click.Context, /, *, as_json: bool, debug: bool, **options: Any) -> int | None:  # noqa: ANN401 - click's
            invocation = Invocation(
                flags=context.meta.get(FLAGS, {}), required=tuple(required), as_json=as_json, debug=debug
            )
            return function(invocation, **options)

        params: list[click.Parameter] = list(reversed(getattr(function, "__click_params__", [])))
        params += [
            click.Option(["--json", "as_json"], is_flag=True, help="Write JSON, results and errors alike."),
            click.Option(
                ["--debug"], is_flag=True, help="Show the traceback of an error, and log lines of level debug."
            ),
        ]
        params += [SettingOption(setting) for setting in _chosen(settings)]
        return Command(
            name=function.__module__.rpartition(".")[2],
            callback=start,
            params=params,
            help=function.__doc__,
            context_settings=HELP,
            epilog="\b\nExamples:\n" + "\n".join(f"  {example}" for example in examples),
        )

    return decorate


def _chosen(settings: Sequence[Section | str]) -> list[Setting]:
    chosen: list[Setting] = []
    for one in settings:
        chosen += [row for row in SETTINGS if row.section == one] if isinstance(one, Section) else [BY_NAME[one]]
    return [setting for setting in chosen if setting.flag is not None]


def _collect(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None and isinstance(parameter, SettingOption):
        context.meta.setdefault(FLAGS, {})[parameter.setting.name] = value


def _complete_choice(
    context: click.Context,  # noqa: ARG001 - click's signature
    parameter: click.Parameter,
    incomplete: str,
) -> list[CompletionItem]:
    choices = parameter.setting.choices if isinstance(parameter, SettingOption) else ()
    return [CompletionItem(choice) for choice in choices if choice.startswith(incomplete)]
