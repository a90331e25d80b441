from __future__ import annotations

from typing import TYPE_CHECKING

import click
import pytest

from replicad.cli.flags import SettingOption
from replicad.cli.main import COMMANDS, cli
from replicad.config import SETTINGS, Setting

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Command


def _options(name: str) -> dict[str, SettingOption]:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return {one.setting.name: one for one in found.params if isinstance(one, SettingOption)}


@pytest.mark.parametrize("setting", [row for row in SETTINGS if row.flag], ids=lambda row: row.name)
def test_every_setting_is_a_flag_of_run(setting: Setting) -> None:
    """`run` takes every setting but secrets; the help gives effect, default, variable and example."""
    option = _options("run")[setting.name]
    assert option.opts == [setting.flag]
    for part in (setting.effect, setting.default_text, setting.variable, setting.example):
        assert part in (option.help or "")


def test_secrets_are_no_flags() -> None:
    """No command takes a secret on its command line."""
    for name in COMMANDS:
        assert not any(option.setting.is_secret for option in _options(name).values())


def test_a_flag_wins_over_its_variable(replicad: Command) -> None:
    """A flag of the command line reaches the settings, with its origin."""
    ended = replicad("config", "--sync-interval", "7s", REPLICAD_SYNC_INTERVAL="3s", REPLICAD_REPLICA="file:///x")
    (line,) = [line for line in ended.out.splitlines() if line.startswith("sync_interval")]
    assert line.split() == ["sync_interval", "7s", "--sync-interval"]


def test_every_option_of_a_command_has_an_example_or_is_plain() -> None:
    """An option that takes a value says in its help what one looks like."""
    for name in COMMANDS:
        found = cli.get_command(click.Context(cli), name)
        assert found is not None
        for option in found.params:
            if isinstance(option, click.Option) and not isinstance(option, SettingOption) and not option.is_flag:
                assert "example: " in (option.help or ""), (name, option.name)
                assert "default: " in (option.help or ""), (name, option.name)
