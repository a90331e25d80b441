"""`status`, `sync`, `snapshot` and `wait` on a running replicad, and without one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.unit.cli.conftest import Running, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.unit.cli.conftest import Command


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A running replicad and its database."""
    with running(tmp_path_factory.mktemp("d"), "--sync-interval", "30s") as found:
        yield found


def _flags(running: Running) -> tuple[str, ...]:
    return ("--database", str(running.path))


def test_sync_makes_all_that_is_committed_durable(daemon: Running, replicad: Command) -> None:
    """After a sync the durable TXID is the newest, long before the next upload would have been due."""
    daemon.write("INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)")
    ended = replicad("sync", *_flags(daemon), "--json")
    assert ended.code == 0, ended.err
    (synced,) = json.loads(ended.out)["databases"]
    (database,) = json.loads(replicad("status", *_flags(daemon), "--json").out)["databases"]
    assert synced["durable_txid"] == database["captured_txid"] == database["durable_txid"]
    assert database["lag_seconds"] == 0
    assert "durable txid" in replicad("sync", *_flags(daemon)).out


def test_status_of_the_running_one(daemon: Running, replicad: Command) -> None:
    """Status comes from the daemon, in both forms."""
    found = json.loads(replicad("status", *_flags(daemon), "--json").out)
    assert (found["source"], found["ready"], found["pid"]) == ("running replicad", True, daemon.process.pid)
    assert "source: running replicad" in replicad("status", *_flags(daemon)).out


def test_snapshot_on_command(daemon: Running, replicad: Command) -> None:
    """A snapshot is durable when the command returns."""
    before = set((daemon.folder / "replica").rglob("snapshots/*.json"))
    daemon.write("INSERT INTO t VALUES (3)")
    ended = replicad("snapshot", *_flags(daemon), "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["databases"][0]["name"] == "app.db"
    assert len(set((daemon.folder / "replica").rglob("snapshots/*.json")) - before) == 1


def test_wait_asks_the_socket(daemon: Running, replicad: Command) -> None:
    """Wait returns at once when the daemon is ready, and says who told it so."""
    ended = replicad("wait", *_flags(daemon), "--json")
    assert (ended.code, json.loads(ended.out)) == (0, {"ready": True, "source": "control socket"})


@pytest.mark.parametrize("command", ["sync", "snapshot"])
def test_without_a_running_one(tmp_path: Path, replicad: Command, command: str) -> None:
    """A command that needs the daemon says that none answers, where it looked, and what to do."""
    ended = replicad(command, "--database", str(tmp_path / "app.db"))
    assert ended.code == 1
    assert f"{tmp_path}/app.db-replicad.sock" in ended.err
    assert "Start `replicad run`" in ended.err
    error = json.loads(replicad(command, "--database", str(tmp_path / "app.db"), "--json").err)
    assert (error["error"], error["exit_code"]) == ("DaemonAbsent", 1)


@pytest.mark.parametrize("command", ["sync", "snapshot", "status", "wait"])
def test_no_socket_to_ask(replicad: Command, command: str) -> None:
    """Without a database or a socket, what is missing is named."""
    ended = replicad(command)
    assert ended.code == 64
    assert "control_socket: expected a value" in ended.err


def test_status_falls_back_to_the_store(history: Running, replicad: Command) -> None:
    """Without a daemon, status says so and shows what the store holds."""
    found = json.loads(replicad("status", *history.flags, "--json").out)
    assert found["source"] == "store"
    assert "No running replicad answers" in found["note"]
    (database,) = found["databases"]
    assert (database["state"], database["last_txid"], database["gaps"]) == ("stopped in order", 7, 0)
    assert "source: store" in replicad("status", *history.flags).out


def test_status_of_nothing(tmp_path: Path, replicad: Command) -> None:
    """An empty store is a state, not an error; without a replica to look at, the missing daemon is the error."""
    database = ("--database", str(tmp_path / "app.db"))
    found = json.loads(replicad("status", *database, "--replica", f"file://{tmp_path}/r", "--json").out)
    assert found["databases"][0]["state"] == "no backup"
    assert replicad("status", *database).code == 1


def test_wait_gives_up(tmp_path: Path, replicad: Command) -> None:
    """Wait ends with 1 at its timeout, and says what it saw last."""
    ended = replicad("wait", "--database", str(tmp_path / "app.db"), "--timeout", "150ms")
    assert ended.code == 1
    assert "was not ready within 0.15 s" in ended.err
    assert "nobody answers at" in ended.err


def test_wait_for_the_ready_file(tmp_path: Path, replicad: Command) -> None:
    """Where no socket answers, the ready file decides."""
    ready = tmp_path / "ready"
    flags = ("--ready-file", str(ready), "--timeout", "100ms")
    assert replicad("wait", *flags).code == 1
    ready.touch()
    ended = replicad("wait", *flags, "--json")
    assert (ended.code, json.loads(ended.out)["source"]) == (0, "ready file")


def test_a_daemon_knows_better_than_a_file(daemon: Running, tmp_path: Path, replicad: Command) -> None:
    """While the socket answers, the ready file is not asked: a killed predecessor may have left it."""
    (tmp_path / "ready").touch()
    ended = replicad("wait", *_flags(daemon), "--ready-file", str(tmp_path / "ready"), "--json")
    assert json.loads(ended.out)["source"] == "control socket"
