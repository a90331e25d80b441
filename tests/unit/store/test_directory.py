# ruff: noqa: ASYNC240 - these tests look at the files themselves
from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from replicad.errors import (
    ObjectExists,
    ObjectMissing,
    StoreRefused,
    StoreUnreachable,
)
from replicad.store.directory import DirectoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DAY_SECONDS = 24 * 3600


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root that does not exist yet, in a folder that does."""
    return tmp_path / "store"


@pytest.fixture
async def store(root: Path) -> AsyncIterator[DirectoryStore]:
    """A store over the root."""
    opened = DirectoryStore(root)
    yield opened
    await opened.close()


async def _keys(store: DirectoryStore, prefix: str = "", after: str = "") -> list[str]:
    return [row.key async for row in store.list(prefix, after=after)]


def _unfinished(root: Path) -> list[Path]:
    return list((root / ".unfinished").iterdir())


async def test_absent_root_is_empty(store: DirectoryStore, root: Path) -> None:
    """A root that is not there holds no objects; the first write makes it."""
    assert await _keys(store) == []
    with pytest.raises(ObjectMissing):
        await store.get("a")
    await store.delete(["a"])
    assert not root.exists()
    await store.put("a/b", b"1")
    assert (root / "a" / "b").read_bytes() == b"1"


async def test_trap_unmounted_is_not_empty(tmp_path: Path) -> None:
    """When the folder above the root is missing the store is out of reach, for reads, listings and writes.

    Seen to fail: without `_look_for_mount` the listing is empty, and the put makes all folders.
    """
    store = DirectoryStore(tmp_path / "mnt" / "store")
    for operation in (store.get("a"), store.put("a", b""), store.create("a", b""), store.delete(["a"]), _keys(store)):
        with pytest.raises(StoreUnreachable, match=r"no folder .*mnt"):
            await operation
    assert list(tmp_path.iterdir()) == []
    await store.close()


async def test_root_that_is_a_file(store: DirectoryStore, root: Path) -> None:
    """A file where the root should be is refused, not taken for an empty store."""
    root.write_bytes(b"")
    with pytest.raises(StoreRefused, match="Not a directory"):
        await _keys(store)
    with pytest.raises(StoreRefused):
        await store.put("a", b"")


async def test_file_in_the_way_of_a_folder(store: DirectoryStore) -> None:
    """`a` and `a/b` cannot both be files; the second is refused."""
    await store.put("a", b"1")
    await store.put("c/d", b"1")
    for key in ("a/b", "a/b/c", "c"):
        with pytest.raises(StoreRefused):
            await store.put(key, b"2")
    assert await _keys(store) == ["a", "c/d"]


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", "./a", "a/../b", "..", ".unfinished/a", "a\0b", "x" * 256, "ü" * 128]
)
async def test_keys_that_are_no_file_names(store: DirectoryStore, key: str) -> None:
    """A key that cannot be a file below the root is refused, for every operation."""
    for operation in (store.get(key), store.put(key, b""), store.create(key, b""), store.delete([key])):
        with pytest.raises(StoreRefused, match="cannot be the name of a file"):
            await operation


async def test_other_files_are_not_listed(store: DirectoryStore, root: Path) -> None:
    """Unfinished files, links, pipes and names that are no text are not objects."""
    await store.put("a/object", b"1")
    (root / ".unfinished" / "left").write_bytes(b"1")
    (root / "a" / "link").symlink_to(root / "a" / "object")
    (root / "looped").symlink_to(root)
    os.mkfifo(root / "pipe")
    Path(os.fsdecode(bytes(root) + b"/\xff\xfe")).write_bytes(b"1")
    assert await _keys(store) == ["a/object"]


async def test_nothing_unfinished_is_left(store: DirectoryStore, root: Path) -> None:
    """After puts, creates, streams and failed ones no unfinished file remains."""

    async def breaking() -> AsyncIterator[bytes]:
        yield b"1"
        raise ValueError("broke")

    await store.put("a", b"1")
    await store.create("b", b"1")
    with pytest.raises(ObjectExists):
        await store.create("b", b"2")
    with pytest.raises(ValueError, match="broke"):
        await store.put_stream("c", breaking())
    with pytest.raises(StoreRefused):
        await store.put("a/b", b"1")
    assert _unfinished(root) == []
    assert await _keys(store) == ["a", "b"]


async def test_old_unfinished_files_are_swept(store: DirectoryStore, root: Path) -> None:
    """What a dead process left more than a day ago goes at the next write; what is younger stays."""
    (root / ".unfinished").mkdir(parents=True)
    for name, age_seconds in (("old", 2 * DAY_SECONDS), ("young", DAY_SECONDS // 2)):
        left = root / ".unfinished" / name
        left.write_bytes(b"1")
        changed = left.stat().st_mtime - age_seconds
        os.utime(left, (changed, changed))
    await store.put("a", b"1")
    assert [path.name for path in _unfinished(root)] == ["young"]


async def test_emptied_folders_go(store: DirectoryStore, root: Path) -> None:
    """Folders that deletions leave empty are removed; others, and the root, stay."""
    for key in ("a/b/c/1", "a/b/2", "d/3"):
        await store.put(key, b"")
    await store.delete(["a/b/c/1", "d/3"])
    assert sorted(path.name for path in root.iterdir()) == [".unfinished", "a"]
    assert not (root / "a" / "b" / "c").exists()
    await store.delete(["a/b/2"])
    assert [path.name for path in root.iterdir()] == [".unfinished"]


async def test_writing_while_folders_vanish(store: DirectoryStore) -> None:
    """Writes and deletions in one folder at the same time all succeed.

    Seen to fail: with `mkdir(parents=True, exist_ok=True)` in `_make_folder`, in four runs of sixty.
    """

    async def come_and_go(number: int) -> None:
        for _ in range(50):
            await store.put(f"folder/{number}", b"")
            await store.delete([f"folder/{number}"])

    await asyncio.gather(*(come_and_go(number) for number in range(6)))
    assert await _keys(store) == []


async def test_folder_that_vanishes_before_the_file_is_placed(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder removed by somebody's deletion just before a file gets its name in it is made again.

    Seen to fail: with one attempt instead of `_PLACING_ATTEMPTS`.
    """
    replace = os.replace
    removed: list[Path] = []

    def racing_replace(source: Path, target: Path) -> None:
        if not removed:
            removed.append(target.parent)
            target.parent.rmdir()
        replace(source, target)

    monkeypatch.setattr(os, "replace", racing_replace)
    await store.put("folder/a", b"1")
    assert removed
    assert await store.get("folder/a") == b"1"


async def test_race_between_processes(root: Path) -> None:
    """Of several processes that create one key, one wins, each time."""
    program = textwrap.dedent(
        """
        import asyncio, sys
        from pathlib import Path
        from replicad.errors import ObjectExists
        from replicad.store.directory import DirectoryStore

        async def main():
            store, won = DirectoryStore(Path(sys.argv[1])), 0
            sys.stdin.readline()
            for number in range(30):
                try:
                    await store.create(f"claims/{number}", sys.argv[2].encode())
                    won += 1
                except ObjectExists:
                    pass
            print(won)
            await store.close()

        asyncio.run(main())
        """
    )

    def race() -> int:
        contenders = [
            subprocess.Popen(
                [sys.executable, "-c", program, str(root), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            for name in ("one", "two")
        ]
        for contender in contenders:
            assert contender.stdin is not None
            contender.stdin.write(b"go\n")
            contender.stdin.flush()
        return sum(int(contender.communicate(timeout=30)[0]) for contender in contenders)

    assert await asyncio.to_thread(race) == 30
