"""What `status` says of ownership: by whom, in which epoch, and what keeps two owners apart."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.google_server import running_google
from tests.support.moto_server import CREDENTIALS, running_moto
from tests.support.waiting import wait_until
from tests.unit.cli.conftest import Running, run_program, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENT = ("--handover-poll-interval", "1m")  # the owner does not look, and is not taken for dead, while a test runs
_FIELDS = ("owner", "ownership", "epoch", "epoch_claimed", "fencing")


@contextmanager
def _newcomer(owner: Running, folder: Path) -> Iterator[Running]:
    """Start another instance with a disk of its own, on the same replica."""
    flags = ["--database", f"{folder}/app.db", "--replica", f"file://{owner.folder}/replica", "--http-listen", "off"]
    flags += [*PATIENT]
    with (folder / "log").open("w") as log:
        command = [sys.executable, "-m", "replicad", "run", *flags, "--", "sleep", "60"]
        process = subprocess.Popen(command, stderr=log, text=True)
        try:
            yield Running(folder=folder, process=process)
        finally:
            process.kill()
            process.wait(30)


def _database(instance: Running) -> dict[str, Any]:
    (found,) = instance.answer("status")["databases"]
    return {name: found[name] for name in _FIELDS}


def _asks(instance: Running) -> bool:
    return "handover_requested" in (instance.folder / "log").read_text()


@pytest.mark.timeout(120)
def test_an_owner_and_a_newcomer(tmp_path: Path) -> None:
    """The owner shows its epoch, and that the store keeps two apart; a newcomer that waits shows that it is one.

    The newcomer is alive (/healthz), not ready, and `sync` on it is refused at once.
    """
    here, there = tmp_path / "a", tmp_path / "b"
    here.mkdir()
    there.mkdir()
    with running(here, *PATIENT) as owner:
        held = {"owner": True, "ownership": "owner", "epoch": 1, "epoch_claimed": True, "fencing": "by the store"}
        assert _database(owner) == held
        with _newcomer(owner, there) as newcomer:
            wait_until(lambda: _asks(newcomer), 30)
            waiting = {"owner": False, "ownership": "newcomer", "epoch": None, "epoch_claimed": False}
            assert _database(newcomer) == waiting | {"fencing": "by the store"}
            assert newcomer.answer("status")["ready"] is False
            refused = newcomer.command("sync", "--json")
            assert (refused.code, json.loads(refused.err)["error"]) == (1, "NotReady")
            assert _database(owner) == held
        assert owner.stop() == 0


@pytest.mark.timeout(120)
def test_a_restart_on_the_same_disk_has_not_claimed_yet(tmp_path: Path) -> None:
    """After a restart the epoch is not claimed, and the store not tried, until there is something to store."""
    with running(tmp_path) as first:
        first.write("INSERT INTO t VALUES (1)")
        first.answer("sync")
        first.process.kill()
        first.process.wait(30)
    before = sorted(path for path in (tmp_path / "replica").rglob("*") if path.is_file())
    again = subprocess.Popen(
        [sys.executable, "-m", "replicad", "run", *first.flags, "--http-listen", "off"], stderr=subprocess.DEVNULL
    )
    second = Running(folder=tmp_path, process=again)  # type: ignore[arg-type] # of bytes, which nobody reads
    try:
        assert second.command("wait", "--timeout", "20s").code == 0
        idle = {"owner": True, "ownership": "owner", "epoch": 2, "epoch_claimed": False, "fencing": "not tried"}
        assert _database(second) == idle
        assert sorted(path for path in (tmp_path / "replica").rglob("*") if path.is_file()) == before
        second.write("INSERT INTO t VALUES (2)")
        second.answer("sync")
        assert _database(second) == idle | {"epoch_claimed": True, "fencing": "by the store"}
        assert not list((tmp_path / "replica").rglob("probes/*"))
    finally:
        again.kill()
        again.wait(30)


def test_required_on_a_store_that_lacks_them_does_not_start(tmp_path: Path) -> None:
    """`fencing: required` ends the start with status 13 where the store cannot keep two apart; nothing is claimed."""
    with running_moto() as moto, running_google(moto.port) as google:
        replica = f"s3://{moto.new_bucket()}?endpoint={google.endpoint}&region=auto&creates=if-none-match"
        flags = ("--database", f"{tmp_path}/app.db", "--replica", replica, "--http-listen", "off")
        refused = run_program("run", *flags, "--fencing", "required", "--", "true", **CREDENTIALS)
        assert refused.code == 13
        assert "no conditional writes" in refused.err
        accepted = run_program("run", *flags, "--fencing", "auto", "--", "true", **CREDENTIALS)
        assert accepted.code == 0, accepted.err
        assert "fencing_advisory" in accepted.err
