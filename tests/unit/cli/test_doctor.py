from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.support.moto_server import running_moto

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.cli.conftest import Command

KEYS = {"REPLICAD_S3_ACCESS_KEY_ID": "an-access-key", "REPLICAD_S3_SECRET_ACCESS_KEY": "a-secret-key"}


def _flags(folder: Path) -> tuple[str, ...]:
    return ("--database", f"{folder}/app.db", "--replica", f"file://{folder}/replica", "--max-wal-bytes", "32MiB")


def test_a_healthy_set_up(tmp_path: Path, program: Command) -> None:
    """All checks of a folder as the store pass, in text and as JSON, with status 0."""
    ended = program("doctor", *_flags(tmp_path))
    assert ended.code == 0, ended.out
    for part in ("store PUT", "conditional writes", "journal mode" if (tmp_path / "app.db").exists() else "database"):
        assert f"ok    {part}: " in ended.out
    found = json.loads(program("doctor", *_flags(tmp_path), "--json").out)
    assert (found["healthy"], found["exit_code"]) == (True, 0)
    assert {check["verdict"] for check in found["checks"]} <= {"ok", "warn"}
    assert {check["subject"] for check in found["checks"]} == {"SQLite", "app.db"}


def test_over_s3(tmp_path: Path, program: Command) -> None:
    """The same checks pass against an S3 server, and no secret is shown."""
    with running_moto() as moto:
        replica = moto.new_bucket_url("app")
        flags = ("--database", f"{tmp_path}/app.db", "--replica", replica, "--max-wal-bytes", "32MiB", "--json")
        ended = program("doctor", *flags, **KEYS)
    assert ended.code == 0, ended.out + ended.err
    verdicts = {check["name"]: check["verdict"] for check in json.loads(ended.out)["checks"]}
    assert {verdicts[f"store {verb}"] for verb in ("PUT", "GET", "LIST", "DELETE")} == {"ok"}
    assert verdicts["conditional writes"] == "ok"
    assert KEYS["REPLICAD_S3_SECRET_ACCESS_KEY"] not in ended.out + ended.err


def test_a_store_out_of_reach_is_13(tmp_path: Path, program: Command) -> None:
    """A store that cannot be reached makes the status 13; the other checks are made all the same."""
    replica = "s3://bucket?endpoint=http://127.0.0.1:1"
    flags = ("--database", f"{tmp_path}/app.db", "--replica", replica, "--retry-timeout", "0s", "--json")
    ended = program("doctor", *flags, **KEYS)
    found = json.loads(ended.out)
    assert (ended.code, found["exit_code"], found["healthy"]) == (13, 13, False)
    assert "folder" in {check["name"] for check in found["checks"]}
    (failed,) = [check for check in found["checks"] if check["verdict"] == "fail"]
    assert "could not be reached" in failed["found"]
    assert failed["advice"]


def test_another_failure_is_1(tmp_path: Path, program: Command) -> None:
    """A file that is no database makes the status 1."""
    (tmp_path / "app.db").write_text("hello")
    ended = program("doctor", *_flags(tmp_path))
    assert ended.code == 1
    assert "fail  database: " in ended.out
    assert "-> Give the path of a plain SQLite database" in ended.out
