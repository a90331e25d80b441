from __future__ import annotations

import json
import shutil
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.cli.conftest import Command, Running


def _log(replicad: Command, history: Running, *arguments: str) -> dict[str, Any]:
    ended = replicad("log", *history.flags, "--json", *arguments)
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert isinstance(found, dict)
    return found


def test_transactions_and_snapshots(history: Running, replicad: Command) -> None:
    """Each transaction is listed once, newest first, with time, pages and sizes; snapshots stand among them."""
    found = _log(replicad, history)
    transactions = [one for one in found["entries"] if one["kind"] == "transaction"]
    assert [one["txid"] for one in transactions] == list(range(7, 7 - len(transactions), -1))
    assert all(newer["ms"] >= older["ms"] for newer, older in pairwise(transactions))
    assert all(one["pages"] >= 1 and one["size_bytes"] == one["pages"] * 4096 for one in transactions)
    assert transactions[0]["database_bytes"] == 8192
    snapshots = [one["txid"] for one in found["entries"] if one["kind"] == "snapshot"]
    assert 4 in snapshots
    assert (found["last_restorable_txid"], found["last_restorable_at"]) == (7, transactions[0]["at"])
    assert found["gaps"] == 0


def test_the_text(history: Running, replicad: Command) -> None:
    """People get columns, and the window that can be restored."""
    ended = replicad("log", *history.flags)
    lines = ended.out.splitlines()
    assert lines[0].split() == ["TIME", "(UTC)", "TXID", "EPOCH", "KIND", "PAGES", "DATABASE", "SIZE"]
    assert lines[-1].startswith("Restorable: ")
    assert "(TXID 7)" in lines[-1]


@pytest.mark.parametrize("limit", [1, 3])
def test_a_limit(history: Running, replicad: Command, limit: int) -> None:
    """--limit is the number of transactions; snapshots older than those are left out."""
    entries = _log(replicad, history, "--limit", str(limit))["entries"]
    transactions = [one["txid"] for one in entries if one["kind"] == "transaction"]
    assert transactions == list(range(7, 7 - limit, -1))
    assert all(one["txid"] >= transactions[-1] for one in entries)


def test_since(history: Running, replicad: Command) -> None:
    """--since leaves out what was committed before, and keeps what was committed then."""
    everything = _log(replicad, history)["entries"]
    moment = next(one for one in everything if one["txid"] == 5)
    found = _log(replicad, history, "--since", moment["at"])["entries"]
    assert found == [one for one in everything if one["ms"] >= moment["ms"]]
    assert _log(replicad, history, "--since", "0 seconds ago")["entries"] == []
    assert replicad("log", *history.flags, "--since", "whenever").code == 64


def test_a_damaged_segment_is_listed_as_such(history: Running, tmp_path: Path, replicad: Command) -> None:
    """An object that cannot be read is a line of the log, not the end of it."""
    shutil.copytree(history.folder / "replica", tmp_path / "replica")
    segment = max((tmp_path / "replica").rglob("*.seg"))
    segment.write_bytes(segment.read_bytes()[:-1] + b"x")
    ended = replicad("log", "--name", "app.db", "--replica", f"file://{tmp_path}/replica", "--json")
    entries = json.loads(ended.out)["entries"]
    (damaged,) = [one for one in entries if one["kind"] == "damaged"]
    assert damaged["txid"] == 7
    assert "is damaged" in damaged["note"]
    assert 6 in [one["txid"] for one in entries if one["kind"] == "transaction"]


def test_no_backup(tmp_path: Path, replicad: Command) -> None:
    """A log of nothing is 10."""
    assert replicad("log", "--name", "app.db", "--replica", f"file://{tmp_path}").code == 10
