"""The policies of docs/bucket.md, enforced: enough for everything, and no action too many."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from replicad.store.open import StoreOptions, open_store
from tests.support.daemon import DaemonProcess
from tests.support.iam_server import REGION, IAMServer, running_iam
from tests.support.mentions import ROOT, fenced
from tests.support.scene import connect, rows_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

POLICIES = [json.loads(block) for block in fenced((ROOT / "docs/bucket.md").read_text(encoding="utf-8"), "json")]
DAEMON, RESTORE = (policy for policy in POLICIES if "Statement" in policy)
IMPATIENT = {"boot_timeout": "1s", "retry_timeout": "0s", "sync_interval": "20ms", "handover_poll_interval": "200ms"}


@pytest.fixture(scope="module")
def server() -> Iterator[IAMServer]:
    """A server that enforces policies."""
    with running_iam() as found:
        yield found


def for_bucket(policy: dict[str, Any], bucket: str, *, without: str = "") -> dict[str, Any]:
    """Return the document for a bucket, with one action taken away."""
    found = json.loads(json.dumps(policy).replace("BUCKET", bucket))
    for statement in copy.copy(found["Statement"]):
        statement["Action"] = [action for action in statement["Action"] if action != without]
        if not statement["Action"]:
            found["Statement"].remove(statement)
    return dict(found)


def actions(policy: dict[str, Any]) -> set[str]:
    """Return every action that a document allows."""
    return {action for statement in policy["Statement"] for action in statement["Action"]}


class World:
    """A bucket, and a daemon under a policy."""

    def __init__(self, server: IAMServer, folder: Path, *, without: str = "") -> None:
        self.server = server
        self.folder = folder
        self.bucket = server.new_bucket()
        self.replica = f"s3://{self.bucket}/app?endpoint={server.endpoint}&region={REGION}"
        self.keys = server.new_user(for_bucket(DAEMON, self.bucket, without=without))
        self.daemon = self.instance("first")

    def instance(self, name: str) -> DaemonProcess:
        """Return a daemon on a disk of its own; it is not started."""
        folder = self.folder / name
        folder.mkdir()
        key_id, secret = self.keys
        settings = {**IMPATIENT, "s3_access_key_id": key_id, "s3_secret_access_key": secret, "segment_bytes": "1MiB"}
        return DaemonProcess(folder / "app.db", self.replica, folder, settings)

    def create(self) -> None:
        """Make the database."""
        with closing(connect(self.daemon.database)) as connection:
            connection.execute("PRAGMA journal_mode=wal")
            connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, v)")
            connection.execute("INSERT INTO t VALUES (1, 'one')")

    def must_be_refused(self) -> None:
        """Start the daemon, which ends by itself: the bucket refuses."""
        try:
            self.daemon.launch(["sleep", "60"])
            assert self.daemon.wait() == 13
        finally:
            self.daemon.kill()

    def restore(self, path: Path, policy: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        """Restore with the program, under a policy of its own."""
        key_id, secret = self.server.new_user(policy)
        arguments = ["restore", "--replica", self.replica, "--name", "app.db", "--output", str(path)]
        return subprocess.run(
            [sys.executable, "-m", "replicad", *arguments, "--retry-timeout", "0s"],
            env={**os.environ, "REPLICAD_S3_ACCESS_KEY_ID": key_id, "REPLICAD_S3_SECRET_ACCESS_KEY": secret},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def test_the_policies_are_enough(server: IAMServer, tmp_path: Path) -> None:
    """A start, commits, a transaction in parts, a snapshot, a handover to another machine, an end, and a restore."""
    world = World(server, tmp_path)
    world.create()
    second = world.instance("second")
    try:
        world.daemon.start()
        with closing(connect(world.daemon.database)) as connection:
            connection.execute("INSERT INTO t VALUES (2, 'two')")
            world.daemon.sync()
            connection.execute("BEGIN")
            connection.executemany("INSERT INTO t VALUES (?, randomblob(1000000))", [(n,) for n in range(3, 23)])
            connection.execute("COMMIT")
            world.daemon.sync()
        world.daemon.snapshot()
        second.start()  # asks the first, which hands over
        assert world.daemon.found("handed_over")
        with closing(connect(second.database)) as connection:
            connection.execute("INSERT INTO t VALUES (23, 'second')")
        assert second.stop() == 0
        assert world.daemon.stop() == 0
    finally:
        world.daemon.kill()
        second.kill()
    stored = server.keys(world.bucket)
    assert not [key for key in stored if "/probes/" in key]
    assert server.open_uploads(world.bucket) == 0
    ended = world.restore(tmp_path / "restored.db", for_bucket(RESTORE, world.bucket))
    assert ended.returncode == 0, ended.stderr
    assert rows_of(tmp_path / "restored.db") == list(range(1, 24))
    for action in sorted(actions(RESTORE)):
        ended = world.restore(tmp_path / "none.db", for_bucket(RESTORE, world.bucket, without=action))
        assert ended.returncode == 13, (action, ended)


@pytest.mark.parametrize("action", ["s3:ListBucket", "s3:GetObject", "s3:PutObject"])
def test_a_daemon_misses_each_permission(server: IAMServer, tmp_path: Path, action: str) -> None:
    """Without listing, reading or writing it does not even start: 13, the bucket refuses."""
    assert action in actions(DAEMON)
    world = World(server, tmp_path, without=action)
    world.create()
    world.must_be_refused()
    assert "403" in world.daemon.lines()


def test_a_start_without_the_permission_to_delete_leaves_its_probe(server: IAMServer, tmp_path: Path) -> None:
    """Everything else works, as the document says."""
    world = World(server, tmp_path, without="s3:DeleteObject")
    world.create()
    try:
        world.daemon.start()
        world.daemon.sync()
        assert world.daemon.stop() == 0
    finally:
        world.daemon.kill()
    assert len([key for key in server.keys(world.bucket) if "/probes/" in key]) == 1


@pytest.mark.parametrize(("without", "left"), [("", 0), ("s3:AbortMultipartUpload", 1)])
def test_without_the_permission_to_abort_parts_are_left(
    server: IAMServer, tmp_path: Path, without: str, left: int
) -> None:
    """An upload that is broken off leaves its parts, which are paid for and shown to nobody."""
    world = World(server, tmp_path, without=without)

    async def break_off() -> None:
        async def parts() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield bytes(5 << 20)
            raise ZeroDivisionError

        options = StoreOptions(
            access_key_id=world.keys[0], secret_access_key=world.keys[1], part_bytes=5 << 20, attempts=1
        )
        store = await open_store(world.replica, options)
        try:
            await store.put_stream("app.db/epochs/00000001/log/x", parts())
        finally:
            await store.close()

    with pytest.raises(ZeroDivisionError):
        asyncio.run(break_off())
    assert server.open_uploads(world.bucket) == left


def test_every_action_of_the_policies_is_looked_at() -> None:
    """None is added to the documents without a test that misses it."""
    assert actions(DAEMON) == {
        "s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload", "s3:DeleteObject"
    }  # fmt: skip
    assert actions(RESTORE) == {"s3:ListBucket", "s3:GetObject"}


def test_a_plain_condition_would_not_do(server: IAMServer, tmp_path: Path) -> None:
    """With StringLike, which a GET without a prefix fails, a missing key is answered by 403, and no start succeeds."""
    world = World(server, tmp_path)
    policy = json.dumps(for_bucket(DAEMON, world.bucket)).replace("StringLikeIfExists", "StringLike")
    world.keys = server.new_user(json.loads(policy))
    world.daemon = world.instance("plain")
    world.create()
    world.must_be_refused()
