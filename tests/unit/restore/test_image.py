"""The temporary file a database is put together in."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from replicad.errors import FileUnusable, NoSpace
from replicad.restore.image import Image

if TYPE_CHECKING:
    from pathlib import Path


def new_image(path: Path, *, size_bytes: int, page_size: int = 512) -> Image:
    """Return an image that was created."""
    image = Image(path, size_bytes=size_bytes, page_size=page_size)
    image.create()
    return image


def test_a_new_image_is_zeros_of_the_right_size(tmp_path: Path) -> None:
    """The file has its full size from the beginning, and what nobody writes is zeros."""
    image = new_image(tmp_path / "a", size_bytes=4 * 512)
    image.write_runs(1, b"x" * 512, [(1, 1)])
    image.close()
    assert (tmp_path / "a").read_bytes() == bytes(512) + b"x" * 512 + bytes(1024)
    assert image.pages == 4


def test_frames_go_to_their_pages_whatever_their_order(tmp_path: Path) -> None:
    """Frames of a block land on their pages, those of neighbouring pages in one call."""
    frames = {7: 3, 2: 4, 3: 6, 1: 5}  # page: frame
    block = b"".join(bytes([frame]) * 512 for frame in range(3, 8))
    image = new_image(tmp_path / "a", size_bytes=8 * 512)
    image.write_frames(list(frames.items()), block, 3)
    image.close()
    written = (tmp_path / "a").read_bytes()
    assert {n // 512 + 1: written[n] for n in range(0, len(written), 512) if written[n]} == frames


def test_more_neighbours_than_one_call_takes(tmp_path: Path) -> None:
    """A row longer than the kernel's limit on buffers is written in several calls."""
    pages = os.sysconf("SC_IOV_MAX") + 500
    block = b"".join(number.to_bytes(4, "big") * 128 for number in range(pages))
    image = new_image(tmp_path / "a", size_bytes=pages * 512)
    image.write_frames([(frame + 1, frame) for frame in range(pages)], block, 0)
    image.close()
    assert (tmp_path / "a").read_bytes() == block


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A file that is there already is never taken for the temporary one."""
    (tmp_path / "a").write_bytes(b"mine")
    with pytest.raises(FileUnusable):
        new_image(tmp_path / "a", size_bytes=512)
    assert (tmp_path / "a").read_bytes() == b"mine"


def test_permissions_of_the_old_file_are_kept(tmp_path: Path) -> None:
    """The mode of the file that is replaced is the new one's; without one it is SQLite's, less the umask."""
    old = tmp_path / "old"
    old.touch()
    old.chmod(0o660)
    before = os.umask(0o027)
    try:
        image, fresh = (new_image(tmp_path / name, size_bytes=512) for name in "ab")
    finally:
        os.umask(before)
    image.take_over(old)
    fresh.take_over(tmp_path / "nobody")
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in "ab"] == [0o660, 0o640]
    fresh.close()
    image.remove()
    image.remove()
    assert not (tmp_path / "a").exists()


def pages_in_memory(path: Path) -> int:
    """Return how many pages of memory the page cache holds of a file."""
    pages = -(-path.stat().st_size // mmap.PAGESIZE)
    found = (ctypes.c_ubyte * pages)()
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        address = ctypes.c_char.from_buffer(mapped)
        start = ctypes.c_void_p(ctypes.addressof(address))
        assert ctypes.CDLL(None).mincore(start, ctypes.c_size_t(len(mapped)), found) == 0
        del address  # the mapping cannot be closed before
    return sum(one & 1 for one in found)


def keeps_files_in_memory(folder: Path) -> bool:
    """Return whether the file system has no disk to drop a file's pages to."""
    path = folder / "probe"
    path.write_bytes(b"x" * mmap.PAGESIZE)
    with path.open("r+b") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return pages_in_memory(path) > 0


def test_finished_pages_leave_the_page_cache(tmp_path: Path) -> None:
    """TRAP: a restore takes a bounded part of the page cache, not as much as the database has.

    Seen to fail (all 128 MiB held) without the advice to the kernel. What is still to be read back stays.
    """
    if keeps_files_in_memory(tmp_path):
        pytest.skip("this file system is memory")
    piece_bytes, pieces, kept = 4 << 20, 32, 3
    image = new_image(tmp_path / "a", size_bytes=pieces * piece_bytes, page_size=4096)
    pages, body = piece_bytes // 4096, os.urandom(piece_bytes)
    for number in range(pieces):
        image.write_runs(number * pages, body, [(number * pages, pages)])
        if number >= kept:
            image.finished([(number * pages, pages)])
    held_bytes = pages_in_memory(tmp_path / "a") * mmap.PAGESIZE
    assert kept * piece_bytes <= held_bytes <= 64 << 20
    image.sync()
    assert (tmp_path / "a").read_bytes() == body * pieces
    image.remove()


def test_a_disk_that_fills_up_is_no_space(tmp_path: Path) -> None:
    """TRAP: no space for the temporary file, found out while it is written, is NoSpace.

    Seen to fail (OSError) without `_problems` around the writing. The limit on a file's size stands in for a full
    disk: the kernel answers a write in the same way, with part of it and then an error.
    """
    script = """
        import resource, signal, sys
        from pathlib import Path
        from replicad.errors import NoSpace
        from replicad.restore.image import Image
        image = Image(Path(sys.argv[1]), size_bytes=64 * 512, page_size=512)
        image.create()
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10 * 512 + 100, resource.RLIM_INFINITY))
        image.write_frames([(n, n) for n in range(1, 10)], bytes(512 * 10), 0)
        try:
            image.write_frames([(n, n) for n in range(10, 20)], bytes(512 * 20), 0)
        except NoSpace as error:
            print(error)
    """
    program = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "a")]
    ended = subprocess.run(program, capture_output=True, text=True, check=True, timeout=30)
    assert f"{tmp_path}: needs 32768 bytes" in ended.stdout, ended.stderr


def test_a_folder_without_permission_says_so(tmp_path: Path) -> None:
    """A file that cannot be made is an error with a next step."""
    with pytest.raises(FileUnusable, match="could not be created"):
        new_image(tmp_path / "missing" / "a", size_bytes=512)


def test_no_space_says_how_much_is_needed(tmp_path: Path) -> None:
    """The message of a full disk names the folder, what is needed and what is free."""
    error = NoSpace(path=tmp_path, needed_bytes=10, free_bytes=5)
    assert "needs 10 bytes, 5 are free" in str(error)
