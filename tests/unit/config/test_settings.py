from __future__ import annotations

import re
from typing import get_args, get_type_hints

import pytest

from replicad.config import SETTINGS, Address, Kind, Secret, Setting, Settings, load
from replicad.config.parse import parse
from replicad.encryption.keys import format_key
from replicad.errors import UsageError

NUMBERS = [row for row in SETTINGS if row.kind in (Kind.DURATION, Kind.SIZE, Kind.COUNT, Kind.NUMBER)]
SCALARS = [row for row in SETTINGS if row.kind is not Kind.DATABASES]
SECRETS = {row.name for row in SETTINGS if row.is_secret}
INTO_DATABASES = {"config", "database", "replica", "name", "databases"}
WRONG = {
    Kind.DURATION: "1",
    Kind.SIZE: "1 parsec",
    Kind.COUNT: "1.5",
    Kind.NUMBER: "much",
    Kind.KEEP: "30 minutes",
    Kind.CHOICE: "maybe",
    Kind.PATH: " ",
    Kind.TEXT: " ",
    Kind.COMMAND: " ",
    Kind.URL: "ftp://bucket",
    Kind.ADDRESS: "9090",
    Kind.SECRET: " ",
    Kind.DATABASES: "/data/app.db",
    Kind.STATEMENTS: " ; ",
    Kind.MIRRORS: "[ftp://bucket]",
}
BASE = {"REPLICAD_DATABASE": "/data/app.db", "REPLICAD_REPLICA": "file:///backup"}


def _by_name(setting: Setting) -> str:
    return setting.name


@pytest.mark.parametrize("setting", SETTINGS, ids=_by_name)
def test_every_setting_says_what_it_does(setting: Setting) -> None:
    """Every setting has an effect in whole sentences, an example, and a name that all sources can spell."""
    assert re.fullmatch(r"[a-z][a-z0-9_]*", setting.name)
    assert setting.effect[0].isupper()
    assert setting.effect.endswith(".")
    assert setting.example
    assert setting.default_text


@pytest.mark.parametrize("setting", SCALARS, ids=_by_name)
def test_every_default_and_example_is_valid(setting: Setting) -> None:
    """What the documentation shows is accepted."""
    parse(setting, setting.example, "here")
    if setting.default is not None:
        parse(setting, setting.default, "here")


@pytest.mark.parametrize("setting", NUMBERS, ids=_by_name)
def test_every_number_has_a_unit_and_bounds(setting: Setting) -> None:
    """A number is refused just outside its bounds and accepted at them; its name or its text carries the unit."""
    assert setting.low is not None
    assert setting.high is not None
    parse(setting, setting.low, "here")
    parse(setting, setting.high, "here")
    beyond = re.sub(r"[0-9.]+", lambda number: str(float(number[0]) + 1), setting.high)
    with pytest.raises(UsageError) as raised:
        parse(setting, beyond if setting.kind is not Kind.COUNT else str(int(setting.high) + 1), "here")
    assert setting.low in str(raised.value)
    assert setting.high in str(raised.value)
    if setting.kind is Kind.SIZE:
        assert setting.name.endswith("_bytes")
    if setting.kind is Kind.DURATION:
        assert setting.field.endswith("_seconds")


@pytest.mark.parametrize("setting", [row for row in SETTINGS if row.name != "config"], ids=_by_name)
def test_every_setting_refuses_a_wrong_value(setting: Setting) -> None:
    """A wrong value is a usage error that names the setting, the variable, what was expected and an example."""
    environ = {key: text for key, text in BASE.items() if key != "REPLICAD_DATABASE" or setting.kind != Kind.DATABASES}
    with pytest.raises(UsageError) as raised:
        load(flags={}, environ=environ | {setting.variable: WRONG[setting.kind]})
    message = str(raised.value)
    assert raised.value.exit_code == 64
    assert setting.name in message
    assert "expected" in message


@pytest.mark.parametrize("setting", SETTINGS, ids=_by_name)
def test_every_setting_reaches_the_settings(setting: Setting) -> None:
    """What a row of the table reads ends up in the field of its name, with the field's type."""
    fields = get_type_hints(Settings)
    if setting.name in INTO_DATABASES or setting.name.removesuffix("_file") in SECRETS - {setting.name}:
        assert setting.field not in fields or setting.name == "databases"
        return
    assert setting.field in fields
    environ = dict(BASE)
    if setting.is_secret:
        environ |= {"REPLICAD_S3_ACCESS_KEY_ID": "an id", "REPLICAD_S3_SECRET_ACCESS_KEY": "a key"}
    # Nobody shall encrypt with a key out of the documentation, so its example is none.
    text = format_key(bytes(range(32))) if setting.name == "encryption_key" else setting.example
    loaded = load(flags={}, environ=environ | {setting.variable: text}).settings
    value = getattr(loaded, setting.field)
    assert value == parse(setting, text, "here")
    kinds = {Kind.DURATION: float, Kind.SIZE: int, Kind.COUNT: int, Kind.SECRET: Secret, Kind.ADDRESS: Address}
    if setting.kind in kinds:
        assert isinstance(value, kinds[setting.kind])
    if setting.choices:
        assert set(get_args(fields[setting.field])) == set(setting.choices)


def test_every_field_of_the_settings_is_in_the_table() -> None:
    """Nothing is configured that the table does not know."""
    assert set(get_type_hints(Settings)) == {row.field for row in SETTINGS} & set(get_type_hints(Settings)) | {
        "databases"
    }


def test_names_are_unique() -> None:
    """No two rows share a name or a variable."""
    assert len({row.variable for row in SETTINGS}) == len(SETTINGS)


def test_a_trap_secrets_in_process_lists() -> None:
    """No secret can be given on a command line, where every process could read it.

    Seen to fail with `flag` returning a name for secrets too.
    """
    secrets = [row for row in SETTINGS if row.is_secret]
    assert {row.name for row in secrets} == SECRETS
    assert len(secrets) == 4
    assert all(row.flag is None for row in secrets)
