"""A tail that no later epoch saw: it is counted, listed, and comes back on request."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from replicad.layout import claim_key, start_key
from replicad.ownership.records import Claim, EpochStart, encode_record
from replicad.position import Epoch

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Command, Running

SECOND = Epoch(2)


@pytest.fixture
def overtaken(history: Running, tmp_path: Path, replicad: Command) -> tuple[str, ...]:
    """The history's replica, of which a second owner saw five of the seven transactions only; the flags that name it.

    That is what the store holds when an owner stood still, or its bucket was away, and it was taken for dead.
    """
    seen = tmp_path / "seen.db"
    answer = json.loads(replicad("restore", *history.flags, "--txid", "5", "-o", str(seen), "--json").out)
    start = EpochStart(
        database_id=_database_id(history),
        epoch=SECOND,
        parent_epoch=1,
        parent_txid=5,
        checksum=answer["checksum"],
        pages=answer["pages"],
        started_ms=0,
    )
    replica = tmp_path / "replica"
    shutil.copytree(history.folder / "replica", replica)
    (replica / "app.db" / "epochs" / "00000001" / "end.json").unlink()
    claim = Claim(id="second", epoch=SECOND, claimed_ms=0, instance="second")
    for key, body in ((claim_key(SECOND), encode_record(claim)), (start_key(SECOND), encode_record(start))):
        (replica / "app.db" / key).parent.mkdir(exist_ok=True)
        (replica / "app.db" / key).write_bytes(body)
    return ("--name", "app.db", "--replica", f"file://{replica}")


def _database_id(history: Running) -> str:
    stored = history.folder / "replica" / "app.db" / start_key(Epoch(1))
    return str(json.loads(stored.read_text())["database_id"])


def _rows(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM t").fetchone()[0])


def test_the_log_counts_an_orphaned_tail(overtaken: tuple[str, ...], replicad: Command) -> None:
    """`log` says how many transactions lie beside the line, which, and how to see and get them."""
    found = json.loads(replicad("log", *overtaken, "--json").out)
    assert (found["epoch"], found["last_txid"]) == (2, 5)
    (tail,) = found["orphaned_tails"]
    assert (tail["epoch"], tail["first_txid"], tail["last_txid"], tail["transactions"]) == (1, 6, 7, 2)
    assert [one["txid"] for one in found["entries"] if one["txid"] > 5] == []
    text = replicad("log", *overtaken).out
    assert "Orphaned tail: 2 transactions of epoch 1, TXID 6 to 7" in text
    assert "`replicad restore --epoch 1`" in text


def test_the_log_of_an_epoch_lists_its_tail(overtaken: tuple[str, ...], replicad: Command) -> None:
    """`log --epoch` lists the line that ends in that epoch, the tail on top of it."""
    found = json.loads(replicad("log", *overtaken, "--epoch", "1", "--json").out)
    assert [one["txid"] for one in found["entries"] if one["kind"] == "transaction"][:3] == [7, 6, 5]


@pytest.mark.parametrize(
    ("arguments", "txid", "rows"),
    [((), 5, 4), (("--epoch", "1"), 7, 6), (("--epoch", "1", "--txid", "6"), 6, 5), (("--epoch", "2"), 5, 4)],
)
def test_a_restore_brings_a_tail_back_on_request(
    overtaken: tuple[str, ...], replicad: Command, arguments: tuple[str, ...], txid: int, rows: int
) -> None:
    """`restore` follows the line, `restore --epoch` the line that ends in that epoch: proven, like any other state."""
    target = _target(overtaken)
    ended = replicad("restore", *overtaken, *arguments, "-o", str(target), "--integrity", "full", "--json")
    assert ended.code == 0, ended.err
    answer = json.loads(ended.out)
    assert (answer["txid"], answer["epoch"], _rows(target)) == (txid, 1, rows)


def _target(overtaken: tuple[str, ...]) -> Path:
    """Return a path beside the replica."""
    return Path(overtaken[-1].removeprefix("file://")).with_name("out.db")


def test_a_tail_is_no_part_of_the_line(overtaken: tuple[str, ...], tmp_path: Path, replicad: Command) -> None:
    """A transaction of the tail is outside the window of the line, and says so."""
    ended = replicad("restore", *overtaken, "--txid", "6", "-o", str(tmp_path / "out.db"))
    assert ended.code == 14
    assert "TXID 6" in ended.err


def test_the_status_of_the_store_counts_it_too(overtaken: tuple[str, ...], replicad: Command) -> None:
    """Without a running replicad `status` reads the store: the epoch, and the tail beside it."""
    found = json.loads(replicad("status", "--database", "/nowhere/app.db", *overtaken, "--json").out)
    (database,) = found["databases"]
    assert (found["source"], database["epoch"]) == ("store", 2)
    assert database["orphaned_tails"][0]["transactions"] == 2
