from __future__ import annotations

import os
import random
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import lz4.frame
import pytest

from replicad.errors import Damaged, HistoryGap, NoBackup, ObjectMissing, UsageError
from replicad.litestream import stream
from replicad.litestream.read import Imported, read_newest
from replicad.restore.progress import Silent
from replicad.store.directory import DirectoryStore
from replicad.store.memory import MemoryStore
from tests.support.ltx_files import FakeReplica, encode_ltx, key

if TYPE_CHECKING:
    from replicad.store.protocol import ObjectStore

GOLDEN = Path(__file__).parents[2] / "golden" / "litestream"


async def read(store: ObjectStore, folder: Path) -> tuple[Imported, bytes]:
    """Return what is read, and what it was read into."""
    path = folder / "out.db"
    path.unlink(missing_ok=True)
    imported = await read_newest(store, path, Silent())
    return imported, path.read_bytes()


async def read_folder(root: Path, folder: Path) -> tuple[Imported, bytes]:
    """Return what is read from a folder."""
    store = DirectoryStore(root)
    try:
        return await read(store, folder)
    finally:
        await store.close()


@pytest.mark.parametrize(
    ("name", "database", "version"),
    [("v0.5.18", "v0.5.18", "0.5"), ("v0.3.13", "v0.3.13", "0.3"), ("ltx-0.5.0", "v0.5.18", "0.5")],
)
async def test_what_litestream_wrote(tmp_path: Path, name: str, database: str, version: str) -> None:
    """The newest state of each golden replica is the database it is of, byte for byte."""
    imported, image = await read_folder(GOLDEN / name, tmp_path)
    assert image == (GOLDEN / f"{database}.db").read_bytes()
    assert imported.version == version
    assert imported.fetched_bytes > 500


@pytest.mark.parametrize("gone", [(9,), (9, 2), (9, 1), (9, 1, 2), (0, 1, 2), (0,)])
async def test_levels_that_are_not_there(tmp_path: Path, gone: tuple[int, ...]) -> None:
    """Whichever levels lead to the newest state, it is the same."""
    root = tmp_path / "replica"
    shutil.copytree(GOLDEN / "v0.5.18", root)
    for level in gone:
        shutil.rmtree(root / "ltx" / str(level))
    imported, image = await read_folder(root, tmp_path)
    assert image == (GOLDEN / "v0.5.18.db").read_bytes()
    assert imported.position == "transaction 15"


def newest_first(root: Path) -> list[Path]:
    """Return the snapshots of a replica, newest first."""
    return sorted((root / "ltx" / "9").iterdir(), reverse=True)


@pytest.mark.parametrize("spoil", ["flip", "cut", "empty", "zeros", "another"])
async def test_a_damaged_file_is_led_around(tmp_path: Path, spoil: str) -> None:
    """While other files hold the same transactions, a damaged one costs a word about it, and nothing else."""
    root = tmp_path / "replica"
    shutil.copytree(GOLDEN / "v0.5.18", root)
    path = newest_first(root)[0]
    raw = path.read_bytes()
    spoiled = {
        "flip": raw[:300] + bytes([raw[300] ^ 4]) + raw[301:],
        "cut": raw[:-20],
        "empty": b"",
        "zeros": bytes(len(raw)),
        "another": newest_first(root)[1].read_bytes(),
    }
    path.write_bytes(spoiled[spoil])
    imported, image = await read_folder(root, tmp_path)
    assert image == (GOLDEN / "v0.5.18.db").read_bytes()
    assert imported.unusable == (f"ltx/9/{path.name}",)


async def test_damage_that_nothing_leads_around(tmp_path: Path) -> None:
    """A damaged file that alone has a transaction is named, with what is wrong; no older state is given."""
    root = tmp_path / "replica"
    shutil.copytree(GOLDEN / "v0.5.18", root)
    for path in root.glob("ltx/*/*-000000000000000f.ltx"):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Damaged, match=r"000000000000000f\.ltx is damaged: index and trailer: expected"):
        await read_folder(root, tmp_path)


async def test_a_file_that_is_missing(tmp_path: Path) -> None:
    """A gap in the chain is an error that says where, not an older state."""
    root = tmp_path / "replica"
    shutil.copytree(GOLDEN / "v0.5.18", root)
    for level in (1, 2, 9):
        shutil.rmtree(root / "ltx" / str(level))
    next(root.glob("ltx/0/*-0000000000000007.ltx")).unlink()
    with pytest.raises(HistoryGap, match="files reach transaction 6, the next one begins with 8"):
        await read_folder(root, tmp_path)


async def fill(store: MemoryStore, replica: FakeReplica, *spans: tuple[int, int, int]) -> None:
    """Store the files of (level, first, last)."""
    for level, first, last in spans:
        await store.put(key(level, first, last, bucket=True), replica.file(first, last))


def history(*sizes: int, seed: int = 1, page_size: int = 512) -> FakeReplica:
    """Return a replica with transactions that leave so many pages."""
    dice, replica = random.Random(seed), FakeReplica(page_size=page_size)
    for size in sizes:
        replica.commit(dice, size=size, writes=2)
    return replica


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
@pytest.mark.parametrize("seed", range(8))
async def test_any_compaction(tmp_path: Path, seed: int, page_size: int) -> None:
    """However the files were compacted, and although the database grew and shrank, the newest state is the same."""
    dice = random.Random(seed)
    replica = history(*(dice.randint(1, 12) for _ in range(12)), seed=seed, page_size=page_size)
    store = MemoryStore()
    for number in range(1, 13):
        await fill(store, replica, (0, number, number))
    for level in (1, 2):
        at = 1
        while at <= 12:
            last = min(12, at + dice.randint(0, 4))
            await fill(store, replica, (level, at, last))
            at = last + 1
    await fill(store, replica, (9, 1, dice.randint(1, 12)))
    _, image = await read(store, tmp_path)
    assert image == replica.image()


async def test_memory_is_a_few_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are fetched in blocks, however large they are: with blocks of 100 bytes the state is the same."""
    monkeypatch.setattr(stream, "_BLOCK_BYTES", 100)
    replica = history(9, 12, 4)
    store = MemoryStore()
    await fill(store, replica, (9, 1, 2), (0, 3, 3))
    _, image = await read(store, tmp_path)
    assert image == replica.image()


async def test_another_page_size_in_the_chain(tmp_path: Path) -> None:
    """A file with other pages than those before it is damage, wherever it came from."""
    replica = history(3, 3)
    store = MemoryStore()
    await fill(store, replica, (0, 1, 1))
    await store.put(key(0, 2, 2, bucket=True), encode_ltx(1024, {1: bytes(1024)}, first=2, last=2, size=3))
    with pytest.raises(Damaged, match="page size: expected 512, as in the files before it, found 1024"):
        await read(store, tmp_path)


async def test_a_file_under_another_name(tmp_path: Path) -> None:
    """A file must be of the transactions in its name."""
    replica = history(3, 3, 3)
    store = MemoryStore()
    await fill(store, replica, (0, 1, 1))
    await store.put(key(0, 2, 2, bucket=True), replica.file(3, 3))
    with pytest.raises(Damaged, match="TXIDs: expected 2 to 2, as in its name, found 3 to 3"):
        await read(store, tmp_path)


class Compacting(MemoryStore):
    """A store in which Litestream compacts, and deletes, while it is read."""

    def __init__(self, replica: FakeReplica) -> None:
        super().__init__("compacting")
        self.replica = replica
        self.times = 0

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """Compact what was listed first; its files are gone when they are asked for."""
        if self.times:
            self.times -= 1
            doomed = [found.key async for found in self.list("0000/")]
            await fill(self, self.replica, (1, 2, 3))
            await self.delete([one for one in doomed if not one.endswith("0001.ltx")])
        return await super().get(key, start=start, stop=stop)


async def test_files_are_compacted_meanwhile(tmp_path: Path) -> None:
    """What was deleted since it was listed stands in another file: the replica is looked at again."""
    replica = history(4, 5, 6)
    store = Compacting(replica)
    await fill(store, replica, (0, 1, 1), (0, 2, 2), (0, 3, 3))
    store.times = 1
    _, image = await read(store, tmp_path)
    assert image == replica.image()


async def test_a_file_that_is_gone_for_good(tmp_path: Path) -> None:
    """A file that is listed and cannot be had is an error, not an older state."""

    class Forgetting(MemoryStore):
        async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
            if key.endswith("0002.ltx"):
                raise ObjectMissing(key=key, store=self.url)
            return await super().get(key, start=start, stop=stop)

    replica = history(4, 5)
    store = Forgetting("forgetting")
    await fill(store, replica, (0, 1, 1), (0, 2, 2))
    with pytest.raises(ObjectMissing):
        await read(store, tmp_path)


async def test_nothing_there(tmp_path: Path) -> None:
    """An empty place has no backup; a place above replicas says where they are."""
    store = MemoryStore()
    with pytest.raises(NoBackup):
        await read(store, tmp_path)
    await store.put("app.db/" + key(0, 1, 1, bucket=True), b"")
    with pytest.raises(UsageError, match=r"which stands above app\.db/"):
        await read(store, tmp_path)


# --- 0.3 -------------------------------------------------------------------------------------------


def pieces(root: Path) -> list[Path]:
    """Return the pieces of the WAL of a 0.3 replica in order."""
    return sorted(root.glob("generations/*/wal/*.lz4"))


async def test_every_piece_of_a_wal(tmp_path: Path) -> None:
    """Without its last pieces a 0.3 replica gives an earlier state; without one in the middle, an error."""
    root = tmp_path / "replica"
    shutil.copytree(GOLDEN / "v0.3.13", root)
    found = pieces(root)
    found[2].unlink()
    with pytest.raises(Damaged, match="offset: expected 7536, where the piece before it ends"):
        await read_folder(root, tmp_path)
    found[0].unlink()
    with pytest.raises(HistoryGap):
        await read_folder(root, tmp_path)


@pytest.mark.parametrize("which", ["snapshot", "wal"])
async def test_every_byte_of_a_frame(tmp_path: Path, which: str) -> None:
    """A 0.3 replica with one byte changed, whichever, is damaged, or gives the very same state."""
    root = tmp_path / "replica"
    shutil.copytree(GOLDEN / "v0.3.13", root)
    path = next(root.glob("generations/*/snapshots/*")) if which == "snapshot" else pieces(root)[3]
    raw, expected = path.read_bytes(), (GOLDEN / "v0.3.13.db").read_bytes()
    for at in range(0, len(raw), 3):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 0x10]) + raw[at + 1 :])
        with suppress(Damaged):
            _, image = await read_folder(root, tmp_path)
            assert image == expected
    for end in range(0, len(raw), 7):
        path.write_bytes(raw[:end])
        with pytest.raises(Damaged):
            await read_folder(root, tmp_path)


async def test_a_wal_that_ends_in_the_middle(tmp_path: Path) -> None:
    """Pieces end with a transaction: one that does not is refused, not applied in part."""
    root = tmp_path / "replica"
    shutil.copytree(GOLDEN / "v0.3.13", root)
    path = pieces(root)[-1]
    raw = lz4.frame.decompress(path.read_bytes())
    path.write_bytes(lz4.frame.compress(raw[:-100], content_checksum=True))
    with pytest.raises(Damaged, match="the end of a transaction"):
        await read_folder(root, tmp_path)


async def test_an_encrypted_replica(tmp_path: Path) -> None:
    """What 0.3 encrypted with age is said to be that."""
    root = tmp_path / "replica"
    shutil.copytree(GOLDEN / "v0.3.13", root)
    next(root.glob("generations/*/snapshots/*")).write_bytes(b"age-encryption.org/v1\n-> X25519 abc\n")
    with pytest.raises(Damaged, match="age: this replica is encrypted"):
        await read_folder(root, tmp_path)


async def test_both_formats_in_one_place(tmp_path: Path) -> None:
    """Where 0.3 wrote before 0.5 did, what was written last counts."""
    root = tmp_path / "replica"
    shutil.copytree(GOLDEN / "v0.3.13", root, copy_function=shutil.copyfile)
    shutil.copytree(GOLDEN / "v0.5.18", root, dirs_exist_ok=True, copy_function=shutil.copyfile)
    imported, image = await read_folder(root, tmp_path)
    assert imported.version == "0.5"
    assert image == (GOLDEN / "v0.5.18.db").read_bytes()
    newest = max(path.stat().st_mtime for path in root.rglob("*"))
    for path in pieces(root):
        os.utime(path, (newest + 1, newest + 1))  # a file system's clock may stand still for some milliseconds
    imported, _ = await read_folder(root, tmp_path)
    assert imported.version == "0.3"
