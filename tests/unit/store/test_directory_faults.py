"""A folder as a store on a disk that is full, forbidden, without links or about to lose power."""

# ruff: noqa: ASYNC240 - these tests look at the files themselves
from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from replicad.errors import ConditionalWritesUnsupported, NoSpace, StoreRefused, StoreUnreachable
from replicad.store.create import probe_conditional_writes
from replicad.store.directory import DirectoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

NOBODY = 65534


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


async def _keys(store: DirectoryStore) -> list[str]:
    return [row.key async for row in store.list("")]


def _unfinished(root: Path) -> list[Path]:
    return list((root / ".unfinished").iterdir())


@contextlib.contextmanager
def _as_nobody() -> Iterator[None]:
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become a user who may not")
async def test_forbidden_folder(store: DirectoryStore, root: Path, tmp_path: Path) -> None:
    """A folder that may not be read or written is refused, and never an empty store."""
    await store.put("a/b", b"1")
    tmp_path.chmod(0o755)
    root.chmod(0o700)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    with _as_nobody():
        for operation in (store.get("a/b"), store.put("c", b""), store.create("c", b""), _keys(store)):
            with pytest.raises(StoreRefused, match="Permission denied"):
                await operation


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"this machine does not let us mount: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def test_trap_disk_full(small_disk: Path) -> None:
    """A full disk is NoSpace with the figures, leaves no part of an object, and what was there can be read.

    Seen to fail: with ENOSPC left out of `_FULL`, StoreUnreachable, which would be tried again in vain.
    """
    store = DirectoryStore(small_disk / "store")
    await store.put("a", bytes(30_000))

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield bytes(10_000)

    for operation in (store.put("b", bytes(100_000)), store.create("b", bytes(100_000))):
        with pytest.raises(NoSpace) as caught:
            await operation
        assert caught.value.details["needed_bytes"] == 100_000
    with pytest.raises(NoSpace):
        await store.put_stream("b", parts())
    assert await _keys(store) == ["a"]
    assert _unfinished(small_disk / "store") == []
    assert await store.get("a") == bytes(30_000)
    await store.close()


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.EIO, StoreUnreachable), (errno.ESTALE, StoreUnreachable), (errno.EROFS, StoreRefused)],
)
async def test_trouble_while_placing(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[Exception]
) -> None:
    """A mount whose server is away may come back; a read-only one will not."""
    await store.put("a", b"")

    def trouble(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", trouble)
    with pytest.raises(expected, match=os.strerror(number)):
        await store.put("b", b"")


async def test_file_system_without_links(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are no hard links the store has no conditional writes, and the probe finds that out."""

    def no_links(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(ConditionalWritesUnsupported, match="no hard links"):
        await store.create("a", b"")
    assert not await probe_conditional_writes(store)
    await store.put("a", b"1")


async def test_trap_rename_without_fsync_of_the_folder(
    store: DirectoryStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File first, then the name, then the folder and every folder with a new entry: in this order to the disk.

    Seen to fail: without `_fsync_folder` in `_finish` and in `_begin`.
    """
    order: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noting_fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        order.append("file" if path.parent.name == ".unfinished" else str(path.relative_to(root.parent)))
        fsync(descriptor)

    def noting_replace(source: Path, target: Path) -> None:
        order.append("name")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(os, "replace", noting_replace)
    await store.put("a/b/object", b"1")
    assert order == ["store", ".", "file", "name", "store/a/b", "store/a", "store"]
    order.clear()
    await store.put("a/b/second", b"1")
    assert order == ["file", "name", "store/a/b"]
