"""Files that are written past the page cache: everything arrives, whatever the file system takes of it at once."""

from __future__ import annotations

import errno
import fcntl
import os
import random
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from replicad.host.newfile import NewFile

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
SIZES = [0, 1, 4_095, 4_096, MIB - 1, MIB, MIB + 1, 3 * MIB, 3 * MIB + 513]


def write(path: Path, size_bytes: int) -> bytes:
    """Write noise in pieces of all lengths, and return it."""
    rng = random.Random(size_bytes)
    body = rng.randbytes(size_bytes)
    with closing(NewFile(path, 0o640)) as file:
        at = 0
        while at < size_bytes:
            n_bytes = rng.choice([1, 512, 4_104, 65_544, 2 * MIB])
            file.write(body[at : at + n_bytes])
            at += n_bytes
        file.sync()
    return body


@pytest.mark.parametrize("size_bytes", SIZES)
def test_all_of_it_arrives(tmp_path: Path, size_bytes: int) -> None:
    """Sizes around those that are written at once."""
    body = write(tmp_path / "new", size_bytes)
    assert (tmp_path / "new").read_bytes() == body
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o640


def test_it_goes_past_the_page_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the end, which is no whole block."""
    real, seen = os.write, []

    def noted(descriptor: int, piece: memoryview) -> int:
        seen.append((bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT), len(piece)))
        return real(descriptor, piece)

    try:
        os.close(os.open(tmp_path / "probe", os.O_WRONLY | os.O_CREAT | os.O_DIRECT))
    except OSError as error:
        pytest.skip(f"the file system of {tmp_path} knows no O_DIRECT: {error}")
    monkeypatch.setattr(os, "write", noted)
    write(tmp_path / "new", 2 * MIB + 513)
    assert seen == [(True, MIB), (True, MIB), (False, 513)]


@pytest.mark.parametrize("size_bytes", SIZES)
def test_a_disk_with_larger_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size_bytes: int) -> None:
    """What it refuses goes through the page cache."""
    real, refused = os.write, 0

    def picky(descriptor: int, piece: memoryview) -> int:
        nonlocal refused
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            refused += 1
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(descriptor, piece)

    monkeypatch.setattr(os, "write", picky)
    assert write(tmp_path / "new", size_bytes) == (tmp_path / "new").read_bytes()
    assert refused <= 1, "it is not asked again"


@pytest.mark.parametrize("most_bytes", [1, 511, 512, 4_097])
def test_a_disk_that_takes_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_bytes: int) -> None:
    """The rest of a write follows, which is not aligned any more."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, piece: real(descriptor, bytes(piece[:most_bytes])))
    assert write(tmp_path / "new", MIB + 9_000) == (tmp_path / "new").read_bytes()


def test_a_file_system_that_knows_of_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no such flag, all goes through the cache."""
    monkeypatch.delattr(os, "O_DIRECT")
    assert write(tmp_path / "new", MIB + 1) == (tmp_path / "new").read_bytes()


def test_a_full_disk_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And by nothing else but its own error."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with closing(NewFile(tmp_path / "new", 0o600)) as file:
        file.write(b"x")
        with pytest.raises(OSError, match="No space"):
            file.sync()


def test_nothing_is_written_over(tmp_path: Path) -> None:
    """It is a new file."""
    (tmp_path / "new").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        NewFile(tmp_path / "new", 0o600)
    assert (tmp_path / "new").read_bytes() == b"old"


def test_closing_twice(tmp_path: Path) -> None:
    """The descriptor of somebody else is left alone."""
    file = NewFile(tmp_path / "new", 0o600)
    file.close()
    other = os.open(tmp_path / "other", os.O_WRONLY | os.O_CREAT)
    file.close()
    os.close(other)
