"""A daemon, writers and a store, through crashes and lost disks; and the judgement over what is stored at the end.

Everything random comes from one seed, printed with the trial's first line: set REPLICAD_SEED to have it again, as far
as processes run the same way twice.
"""

from __future__ import annotations

import asyncio
import os
import random
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from replicad.host.clock import SystemClock
from replicad.plan.target import AtTXID, Latest
from replicad.position import TXID
from replicad.restore.progress import Silent
from replicad.restore.request import Integrity, RestoreRequest
from replicad.restore.restore import restore
from replicad.store.open import open_store
from replicad.store.options import StoreOptions
from replicad.store.prefixed import PrefixedStore
from tests.support.daemon import BRISK, DaemonProcess
from tests.support.moto_server import CREDENTIALS
from tests.support.oracle import StoredHistory, check_ledger, image_of
from tests.support.waiting import wait_until
from tests.support.writers import WriterGroup, create_database

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicad.plan.target import Target
    from replicad.restore.request import Restored
    from replicad.store.protocol import ObjectStore

COMPANIONS = ("", "-wal", "-shm", "-journal", "-replicad")


def chosen_seed(default: int) -> int:
    """Return the seed to use: REPLICAD_SEED, or the test's own."""
    return int(os.environ.get("REPLICAD_SEED", default))


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What differs from trial to trial."""

    page_size: int = 4096
    auto_vacuum: int = 0  # 0 none, 1 full, 2 incremental
    wal: bool = True  # the database is in WAL mode from the beginning
    as_parent: bool = False  # the daemon starts the writers, and a crash takes both
    writers: tuple[str, ...] = ("sqlite3", "apsw")  # the engine of each
    settings: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """What the source had at a transaction, while nobody wrote."""

    txid: int
    image: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What a successful sync has promised."""

    txid: int
    acknowledged: int  # in the ledger, before the sync was asked for
    keys: frozenset[str]  # what was stored when it returned


class Trial:
    """One database's life. Use as a context manager: it leaves no process behind."""

    def __init__(self, folder: Path, replica: str, conditions: Conditions, *, seed: int) -> None:
        self.database = folder / "app.db"
        self.freezes: list[Freeze] = []
        self.promises: list[Promise] = []
        self._folder = folder
        self._replica = replica
        self._conditions = conditions
        self._random = random.Random(seed)
        self._lives = 0
        print(f"REPLICAD_SEED={seed} {conditions}")  # noqa: T201 - pytest shows it when the test fails
        self.writers = WriterGroup(self.database, folder)
        small = {"segment_bytes": "256KiB", "checkpoint_wal_bytes": "256KiB", "sync_interval": "50ms"}
        self.daemon = DaemonProcess(self.database, replica, folder, BRISK | small | dict(conditions.settings or {}))

    def __enter__(self) -> Self:
        create_database(
            self.database,
            page_size=self._conditions.page_size,
            auto_vacuum=self._conditions.auto_vacuum,
            wal=self._conditions.wal,
        )
        return self

    def __exit__(self, *failure: object) -> None:
        self.daemon.kill()
        self.writers.kill()
        self.writers.__exit__()
        if failure[0] is not None:
            print(self.daemon.log.read_text()[-20_000:])  # noqa: T201 - pytest shows it when the test fails

    # --- what happens ------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the daemon and, unless they run already, the writers."""
        wanted = [] if self.writers.pids else self._commands()
        if self._conditions.as_parent and wanted:
            self.daemon.start(["sh", "-c", " & ".join([*(shlex.join(command) for command in wanted), "wait"])])
            for _ in wanted:
                self.writers.accept()
            return
        self.daemon.start()
        self.start_writers()

    def start_writers(self) -> None:
        """Start the writers as children of the test, unless they run already."""
        if not self.writers.pids:
            self._lives += 1
            for number, engine in enumerate(self._conditions.writers):
                self.writers.start(engine=engine, seed=self._lives * 100 + number)

    def let_write(self, transactions: int) -> None:
        """Wait until the writers have committed some more."""
        target = self.writers.acknowledged() + transactions
        wait_until(lambda: self.writers.acknowledged() >= target, 60)

    def freeze(self) -> None:
        """Note what the source has at a transaction."""
        with self.writers.paused():
            txid = self.daemon.sync()
            self.freezes.append(Freeze(txid=txid, image=image_of(self.database)))

    def sync(self) -> None:
        """Have the daemon promise something, while the writers go on."""
        acknowledged = self.writers.acknowledged()
        txid = self.daemon.sync()
        self.promises.append(Promise(txid=txid, acknowledged=acknowledged, keys=frozenset(self.stored_keys())))

    def crash(self, *, daemon: bool = True, writers: bool = True) -> None:
        """End processes wherever they are."""
        if daemon:
            self.daemon.kill()
        if writers:
            self.writers.kill()

    def lose_disk(self) -> None:
        """Delete the database and all that lies beside it; everybody must have been ended."""
        for companion in COMPANIONS:
            Path(f"{self.database}{companion}").unlink(missing_ok=True)
        self.writers.forget_acknowledged()

    def misfortune(self) -> None:
        """Let something happen, by the seed."""
        dice = self._random.random()
        self.let_write(self._random.randrange(1, 60))
        if dice < 0.25:
            self.sync()
        elif dice < 0.4:
            self.freeze()
        elif dice < 0.5:
            self.daemon.snapshot()
        elif dice < 0.6 and not self._conditions.as_parent:
            self.crash(daemon=False)
            self.start_writers()
        elif dice < 0.75 and not self._conditions.as_parent:
            self.crash(writers=False)
            if dice < 0.7:
                self.let_write(self._random.choice([0, 1, 5, 50]))
            self.start()
        else:
            self.crash()
            if dice > 0.85:
                self.lose_disk()
            self.start()

    def end(self) -> None:
        """End everything in order: what the database holds then is stored."""
        if self._conditions.as_parent:
            self.daemon.stop()
            self.writers.kill()
        else:
            self.writers.stop()
            assert self.daemon.stop() == 0

    # --- the judgement -----------------------------------------------------------------------------

    def judge(self) -> None:
        """Hold all that is stored against the source, the promises and itself; everything must have ended.

        Raises:
            AssertionError: a difference.
        """
        objects = self.stored_objects()
        history = StoredHistory(objects)
        frozen = {freeze.txid: freeze.image for freeze in self.freezes}
        every = max(1, len(objects) // 12)
        newest = None
        for number, (txid, state) in enumerate(history.states()):
            newest = txid
            if txid in frozen:
                _assert_same(bytes(state.image), frozen.pop(txid), f"TXID {txid}", state.page_size)
            if number % every == 0:
                check_ledger(bytes(state.image))
        assert not frozen, f"transactions {sorted(frozen)} cannot be restored"
        assert newest is not None
        source, image = image_of(self.database), bytes(state.image)
        _assert_same(image, source, f"TXID {newest}, the newest", state.page_size)
        check_ledger(source)
        for promise in self.promises:
            kept = StoredHistory({key: objects[key] for key in promise.keys if key in objects})
            txid, held = kept.newest()
            assert txid >= promise.txid, f"{promise.txid} was promised, {txid} was stored"
            assert check_ledger(bytes(held.image)) >= promise.acknowledged
        self._judge_restore(Latest(), source)
        for freeze in self._random.sample(self.freezes, min(2, len(self.freezes))):
            self._judge_restore(AtTXID(TXID(freeze.txid)), freeze.image)

    def stored_keys(self) -> set[str]:
        """Return the keys of everything that is stored now."""
        return set(asyncio.run(self._read_store(bodies=False)))

    def stored_objects(self) -> dict[str, bytes]:
        """Return everything that is stored now."""
        return asyncio.run(self._read_store(bodies=True))

    def restored(self, target: Target, path: Path) -> Restored:
        """Restore with the product."""

        async def run() -> Restored:
            store = await self._open_store()
            try:
                request = RestoreRequest(path=path, target=target, force=True, integrity=Integrity.FULL)
                return await restore(store, request, Silent(), SystemClock())
            finally:
                await store.close()

        return asyncio.run(run())

    def _judge_restore(self, target: Target, image: bytes) -> None:
        path = self._folder / "restored.db"
        found = self.restored(target, path)
        _assert_same(path.read_bytes(), image, f"restored to {target}", found.page_size)

    async def _open_store(self) -> ObjectStore:
        options = StoreOptions(
            access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"], secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"]
        )
        return PrefixedStore(await open_store(self._replica, options, observer=None), "app.db/", shared=False)

    async def _read_store(self, *, bodies: bool) -> dict[str, bytes]:
        store = await self._open_store()
        try:
            keys = [found.key async for found in store.list("")]
            return {key: await store.get(key) if bodies else b"" for key in keys}
        finally:
            await store.close()

    def _commands(self) -> list[list[str]]:
        self._lives += 1
        return [
            self.writers.command(engine=engine, seed=self._lives * 100 + number)
            for number, engine in enumerate(self._conditions.writers)
        ]


def _assert_same(found: bytes, expected: bytes, what: str, page_size: int) -> None:
    """Compare two images page for page. No byte is exempt: not the lock page (zeros), not the change counter."""
    if found == expected:
        return
    sizes = f"{len(found) // page_size} pages, expected {len(expected) // page_size}"
    differing = [
        at // page_size + 1
        for at in range(0, min(len(found), len(expected)), page_size)
        if found[at : at + page_size] != expected[at : at + page_size]
    ]
    raise AssertionError(f"{what}: {sizes}; pages that differ: {differing[:20]} ({len(differing)})")
