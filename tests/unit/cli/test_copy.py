from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.support.oracle import read_folder

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.cli.conftest import Command, Running


def test_a_copy_can_be_restored_from(history: Running, tmp_path: Path) -> None:
    """A copy in another folder gives back the newest transaction, and says how much it took."""
    there = f"file://{tmp_path}/copy"
    answer = history.answer("copy", there)
    (copied,) = answer["databases"]
    assert copied["sent_objects"] == copied["missing_objects"] > 5
    assert (copied["damaged"], copied["present_objects"]) == ([], 0)
    newest = history.answer("log")["entries"][0]
    assert copied["last_txid"] == newest["txid"]
    ours, theirs = read_folder(history.folder / "replica/app.db"), read_folder(tmp_path / "copy/app.db")
    assert theirs == {key: body for key, body in ours.items() if not key.startswith(("handover/", "probes/"))}
    ended = history.command("restore", "--replica", there, "--output", str(tmp_path / "out.db"))
    assert ended.code == 0, ended.err
    assert f"TXID {newest['txid']}," in ended.out


def test_a_second_copy_sends_nothing(history: Running, tmp_path: Path) -> None:
    """It says that all is there, and --verify that the bytes are the same; a changed byte ends it with 2."""
    there = f"file://{tmp_path}/copy"
    assert history.command("copy", there).code == 0
    ended = history.command("copy", there, "--verify")
    assert ended.code == 0, ended.err
    assert "Copied 0 objects" in ended.out
    assert "Compared byte by byte" in ended.out
    segment = next((tmp_path / "copy/app.db").rglob("*.seg"))
    segment.write_bytes(segment.read_bytes()[:-1] + b"?")
    ended = history.command("copy", there, "--verify")
    assert ended.code == 2
    assert f"Damaged: {segment.relative_to(tmp_path / 'copy/app.db')}" in ended.out


def test_a_dry_run_writes_nothing(history: Running, tmp_path: Path) -> None:
    """--dry-run says what is missing, and makes no folder."""
    ended = history.command("copy", f"file://{tmp_path}/copy", "--dry-run")
    assert ended.code == 0, ended.err
    assert ended.out.startswith("Would copy ")
    assert list(tmp_path.iterdir()) == []


def test_where_a_copy_cannot_go(history: Running, tmp_path: Path, replicad: Command) -> None:
    """The replica itself, no URL, a missing database, half a key and another database's copy are refused with 64."""
    key = tmp_path / "key"
    key.write_text("abc")
    other = tmp_path / "copy/app.db/epochs/00000001/start.json"
    assert history.command("copy", f"file://{tmp_path}/copy").code == 0
    other.write_text(other.read_text().replace('"database_id":"', '"database_id":"f'))
    there = f"file://{tmp_path}/other"
    half = ("--destination-access-key-id-file", str(key))
    cases = {
        "another place than the replica": replicad("copy", *history.flags, f"file://{history.folder}/replica"),
        "begins with s3:// or file://": replicad("copy", *history.flags, "ftp://there"),
        "both or none": replicad("copy", *history.flags, there, *half),
        "another history": replicad("copy", *history.flags, f"file://{tmp_path}/copy"),
        "REPLICAD_DATABASE": replicad("copy", "--replica", f"file://{history.folder}/replica", there),
    }
    for said, ended in cases.items():
        assert ended.code == 64, (said, ended)
    assert "another history" in cases["another history"].err
    assert "both or none" in cases["both or none"].err
    assert "another place" in cases["another place than the replica"].err
    assert not (tmp_path / "other").exists()


def test_all_databases_of_a_list(history: Running, tmp_path: Path, replicad: Command) -> None:
    """Every configured database is copied, or the one that was chosen."""
    config = tmp_path / "replicad.yml"
    replica = f"file://{history.folder}/replica"
    config.write_text(
        f"replica: {replica}\ndatabases:\n  - /nowhere/app.db\n  - {{path: /nowhere/b.db, name: app.db, replica: 'file://{tmp_path}/b'}}\n"
    )
    assert replicad("copy", "--replica", replica, "--name", "app.db", f"file://{tmp_path}/b").code == 0
    config.write_text(f"replica: {replica}\ndatabases: [{{path: /nowhere/app.db}}, {{path: /nowhere/none.db}}]\n")
    ended = replicad("copy", "--config", str(config), f"file://{tmp_path}/copy")
    assert ended.code == 10  # the second one has no backup
    ended = replicad("copy", "--config", str(config), "--name", "app.db", f"file://{tmp_path}/copy", "--json")
    assert ended.code == 0, ended.err
    assert [one["name"] for one in json.loads(ended.out)["databases"]] == ["app.db"]
