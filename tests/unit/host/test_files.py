from __future__ import annotations

import os
import stat
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from replicad.errors import FileUnusable, NoSpace
from replicad.host import files

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a file system of 64 KiB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("durable", [True, False])
def test_atomic_write_replaces(tmp_path: Path, durable: bool) -> None:  # noqa: FBT001 - a parameter
    """What is written is all there is afterwards: content, permissions, and no temporary file."""
    path = tmp_path / "state"
    path.write_bytes(b"old and longer than the new content")
    before = os.umask(0o077)
    try:
        files.atomic_write(path, b"new", mode=0o644, durable=durable)
    finally:
        os.umask(before)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_write_takes_any_buffer(tmp_path: Path) -> None:
    """A view of multi-byte items is written as its bytes."""
    files.atomic_write(tmp_path / "a", memoryview(b"01234567").cast("I"), durable=False)
    assert (tmp_path / "a").read_bytes() == b"01234567"
    files.atomic_write(tmp_path / "b", b"", durable=False)
    assert (tmp_path / "b").read_bytes() == b""


def test_atomic_write_is_seen_whole(tmp_path: Path) -> None:
    """A reader beside the writer never sees a part, a mixture or nothing.

    Seen to fail with `path.write_bytes(body)` in its place: the reader found empty files at once.
    """
    path = tmp_path / "state"
    bodies = [b"a" * 300_000, b"b" * 5]
    files.atomic_write(path, bodies[0], durable=False)
    done = threading.Event()
    seen: set[bytes] = set()

    def read() -> None:
        while not done.is_set():
            seen.add(path.read_bytes())

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        for number in range(300):
            files.atomic_write(path, bodies[number % 2], durable=False)
        done.set()
        reading.result()
    assert seen <= set(bodies)


def test_rename_without_fsync_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A durable write syncs the file before it is renamed, and the folder after.

    Seen to fail without the `fsync_directory` in atomic_write (no "sync folder" at the end), and with the
    file's own fsync taken out.
    """
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(descriptor: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        steps.append(f"sync {kind}")
        fsync(descriptor)

    def noted_replace(path: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    files.atomic_write(tmp_path / "state", b"body", durable=True)
    assert steps == ["sync file", "rename", "sync folder"]
    steps.clear()
    files.atomic_write(tmp_path / "state", b"body", durable=False)
    assert steps == ["rename"]


def test_disk_full_keeps_the_old_file(tiny_disk: Path) -> None:
    """A disk that fills up while writing is NoSpace, the old file stands and nothing lies beside it.

    Seen to fail without the `unlink` of the temporary file: it stayed and kept the disk full.
    """
    path = tiny_disk / "state"
    files.atomic_write(path, b"old", durable=True)
    with pytest.raises(NoSpace, match="needs 131072 bytes"):
        files.atomic_write(path, b"x" * 131_072, durable=True)
    assert path.read_bytes() == b"old"
    assert list(tiny_disk.iterdir()) == [path]


def test_errors_name_the_path(tmp_path: Path) -> None:
    """Whatever the system refuses comes as FileUnusable with the path and the system's reason."""
    missing = tmp_path / "no" / "folder" / "state"
    with pytest.raises(FileUnusable, match=r"state could not be written: No such file"):
        files.atomic_write(missing, b"", durable=False)
    with pytest.raises(FileUnusable, match=r"synced: No such file"):
        files.fsync_directory(missing.parent)
    with pytest.raises(FileUnusable, match=r"removed: Is a directory"):
        files.remove(tmp_path)
    files.remove(tmp_path / "never there")


def test_move_aside_takes_free_names(tmp_path: Path) -> None:
    """Each file moved aside gets a name of its own; what had the name before keeps it.

    Seen to fail with a plain rename to `<name>.<suffix>`: the first file's content was gone.
    """
    path = tmp_path / "app.db"
    moved = []
    for content in ("first", "second", "third"):
        path.write_text(content)
        moved.append(files.move_aside(path, "diverged"))
        assert not path.exists()
    assert [file.name for file in moved] == ["app.db.diverged", "app.db.diverged-2", "app.db.diverged-3"]
    assert [file.read_text() for file in moved] == ["first", "second", "third"]
    assert len(list(tmp_path.iterdir())) == 3


def test_move_aside_at_once(tmp_path: Path) -> None:
    """Many that move files to one name at the same time lose none of them."""
    sources = []
    for number in range(40):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        (folder / "app.db").write_text(str(number))
        (tmp_path / "all").mkdir(exist_ok=True)
        source = tmp_path / "all" / f"{number}"
        source.write_text(str(number))
        sources.append(source)
    with ThreadPoolExecutor(8) as pool:
        moved = list(pool.map(lambda source: _rename_and_move(source, tmp_path / "all" / "app.db"), sources))
    contents = sorted(int(file.read_text()) for file in (tmp_path / "all").iterdir())
    assert contents == list(range(40))
    assert len(moved) == 40


_one_at_a_time = threading.Lock()


def _rename_and_move(source: Path, name: Path) -> Path:
    # the name can belong to one file at a time; only the moves race
    while True:
        with _one_at_a_time:
            if not name.exists():
                source.rename(name)
                break
    return files.move_aside(name, "old")


def test_move_aside_of_nothing(tmp_path: Path) -> None:
    """Moving a missing file is an error that leaves no reserved name behind."""
    with pytest.raises(FileUnusable, match="moved aside: No such file"):
        files.move_aside(tmp_path / "app.db", "old")
    assert list(tmp_path.iterdir()) == []


def test_free_bytes(tiny_disk: Path) -> None:
    """Free space is that of the file system on which the path is, or would be created."""
    before = files.free_bytes(tiny_disk / "not" / "yet" / "there")
    assert 0 < before <= 65_536
    (tiny_disk / "file").write_bytes(b"x" * 32_768)
    assert files.free_bytes(tiny_disk) == before - 32_768


def test_identity(tmp_path: Path) -> None:
    """A file keeps its identity when renamed, a file put in its place has another, and none has none."""
    path, other = tmp_path / "app.db", tmp_path / "other.db"
    path.write_bytes(b"one")
    first = files.identity_at(path)
    assert first is not None
    descriptor = os.open(path, os.O_RDONLY)
    try:
        path.rename(other)
        assert files.identity_at(other) == first
        path.write_bytes(b"two")
        assert files.identity_at(path) not in {first, None}
        other.unlink()
        assert files.identity_at(other) is None
        assert files.identity_at(path / "below a file") is None
        assert files.identity_of(descriptor) == first
    finally:
        os.close(descriptor)


def aged(path: Path, *, ns: int = 1_000_000) -> None:
    """Have the file look as if it had been written to a while ago, at this part of a second."""
    modified_ns = (time.time_ns() // 10**9 - 5) * 10**9 + ns
    os.utime(path, ns=(modified_ns, modified_ns))


def test_a_stamp_stays_until_the_file_is_written_to(tmp_path: Path) -> None:
    """Reading, renaming and new permissions leave it; a byte more or another one does not."""
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_bytes(b"content")
    aged(path)
    before = files.stamp_at(path)
    assert before is not None
    path.read_bytes()
    path.chmod(0o600)
    path.rename(other)
    with other.open("r+b") as file:
        assert files.stamp_of(file.fileno()) == files.stamp_at(other) == before
        assert files.stamp_at(path) is None
        file.write(b"C")
    assert files.stamp_at(other) != before, "written a moment ago: nothing sure"
    aged(other, ns=2_000_000)
    assert files.stamp_at(other) not in {None, before}
    aged(other)
    assert files.stamp_at(other) == before, "as it was, for one who sets it back"
    other.write_bytes(b"content, and more")
    aged(other)
    assert files.stamp_at(other) != before


def test_another_file_has_another_stamp(tmp_path: Path) -> None:
    """A copy of the same bytes and age, put in its place, is another file."""
    path, other = tmp_path / "a", tmp_path / "b"
    for copy in (path, other):
        copy.write_bytes(b"content")
        aged(copy)
    before = files.stamp_at(path)
    other.replace(path)
    after = files.stamp_at(path)
    assert before is not None
    assert after is not None
    assert (after.modified_ns, after.size_bytes) == (before.modified_ns, before.size_bytes)
    assert after != before


def test_what_may_be_written_to_unseen_has_no_stamp(tmp_path: Path) -> None:
    """Right behind a write, and on a file system that keeps whole seconds, another write may leave no trace.

    Seen to fail (two contents, one stamp) without the two comparisons in `_stamp`, in one of a few hundred turns.
    """
    path = tmp_path / "a"
    path.write_bytes(b"content")
    assert files.stamp_at(path) is None
    aged(path)
    assert files.stamp_at(path) is not None
    aged(path, ns=0)
    assert files.stamp_at(path) is None
    with path.open("rb") as file:
        path.touch()
        assert files.stamp_of(file.fileno()) is None
        assert files.stamp_of(file.fileno(), patient=True) is not None
    in_an_hour_ns = time.time_ns() + 3_600 * 10**9 + 1
    os.utime(path, ns=(in_an_hour_ns, in_an_hour_ns))
    assert files.stamp_at(path) is None, "by a clock that was set back since"
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        with path.open("r+b", buffering=0) as file:
            file.write(b"1")
            before = files.stamp_of(file.fileno())
            file.seek(0)
            file.write(b"2")
            assert before is None or files.stamp_of(file.fileno()) != before
