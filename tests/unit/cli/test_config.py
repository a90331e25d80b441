from __future__ import annotations

import json
from typing import TYPE_CHECKING

from replicad.config import SETTINGS

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Command

KEY = "wJalrXUtnFEMIK7MDENG"
SECRETS = {"REPLICAD_S3_ACCESS_KEY_ID": "AKIDEXAMPLE", "REPLICAD_S3_SECRET_ACCESS_KEY": KEY}


def test_every_setting_with_its_origin(replicad: Command) -> None:
    """All settings are listed with value and origin, secrets as ***, in both forms."""
    arguments = ("config", "--database", "/data/app.db", "--replica", "s3://bucket")
    ended = replicad(*arguments, **SECRETS)
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [row.name for row in SETTINGS]
    assert "s3_secret_access_key" in ended.out
    assert "REPLICAD_S3_SECRET_ACCESS_KEY" in ended.out
    as_json = replicad(*arguments, "--json", **SECRETS)
    found = json.loads(as_json.out)
    assert found["database"] == {"value": "/data/app.db", "origin": "--database"}
    assert found["s3_secret_access_key"] == {"value": "***", "origin": "REPLICAD_S3_SECRET_ACCESS_KEY"}
    for text in (ended.out, as_json.out):
        assert KEY not in text
        assert "AKIDEXAMPLE" not in text


def test_check(replicad: Command) -> None:
    """`--check` is 0 for a configuration that `run` would take, and 64 with the reason for another."""
    ended = replicad("config", "--check", "--database", "/data/app.db", "--replica", "s3://bucket")
    assert (ended.code, ended.out) == (0, "The configuration is valid. Databases: app.db.\n")
    ended = replicad("config", "--check", "--database", "/data/app.db")
    assert ended.code == 64
    assert "replica: expected a value" in ended.err
