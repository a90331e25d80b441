"""The `-wal` file, read raw. A descriptor on it holds no lock, so opening and closing it is harmless."""

from __future__ import annotations

import os
from pathlib import Path

from replicad.host.files import FileIdentity, identity_of
from replicad.wal import FRAME_HEADER_BYTES, HEADER_BYTES, Frames, SaltsMoved, WALHeader, frame_offset, parse_frames
from replicad.wal.header import parse_header


class WALFile:
    """Header and frames of a database's WAL, whether it exists yet or not."""

    def __init__(self, database: Path) -> None:
        self.path = Path(f"{database}-wal")
        self.identity: FileIdentity | None = None  # which file it is, or was before `close`; None: there was none
        self._descriptor = -1
        self._buffer = bytearray()
        self._raw_header = b""
        self._header: WALHeader | None = None

    def header(self) -> WALHeader | None:
        """Return the header, or None when there is no WAL, an empty one, or one whose header is being written."""
        if self._descriptor < 0 and not self._open():
            return None
        raw = os.pread(self._descriptor, HEADER_BYTES, 0)
        if raw != self._raw_header:  # the same bytes are the same header: taking them apart is most of a look's cost
            self._raw_header, self._header = raw, parse_header(raw)
        return self._header

    def size_bytes(self) -> int:
        """Return the size of the file, 0 when there is none."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def was_replaced(self) -> bool:
        """Return whether the path now names another file than the one that is open."""
        if self._descriptor < 0:
            return False
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return True
        opened = os.fstat(self._descriptor)
        return (found.st_dev, found.st_ino) != (opened.st_dev, opened.st_ino)

    def read(self, first: int, count: int, *, page_size: int, salts: bytes) -> Frames:
        """Return `count` frames from number `first` (counted from 1); they must be committed ones.

        Their images are good until the next call: its frames go into the same memory.

        Raises:
            SaltsMoved: the WAL was reset since its index was looked at.
        """
        size = count * (page_size + FRAME_HEADER_BYTES)
        if len(self._buffer) < size:
            self._buffer = bytearray(size)
        raw = memoryview(self._buffer)[:size]
        if self._fill(raw, frame_offset(first, page_size)) < size:  # truncated meanwhile, which takes a reset first
            raise SaltsMoved
        frames = parse_frames(raw, page_size=page_size, salts=salts)
        if frames.bare:  # they do not say themselves that the WAL is still the one that was looked at
            header = self.header()
            if header is None or header.salts != salts:
                raise SaltsMoved
        return frames

    def read_page(self, frame: int, *, page_size: int) -> bytes:
        """Return the page image of one frame that a pin protects."""
        image = os.pread(self._descriptor, page_size, frame_offset(frame, page_size) + FRAME_HEADER_BYTES)
        if len(image) < page_size:
            raise SaltsMoved
        return image

    def sync(self) -> None:
        """Wait until everything written so far is on the disk."""
        if self._descriptor >= 0 or self._open():
            os.fdatasync(self._descriptor)

    def frame_checksum(self, frame: int, *, page_size: int) -> bytes | None:
        """Return the 8 bytes of cumulative checksum in a frame's header, None when it is not there."""
        if self._descriptor < 0 and not self._open():
            return None
        found = os.pread(self._descriptor, 8, frame_offset(frame, page_size) + 16)
        return found if len(found) == 8 else None  # noqa: PLR2004 - two 32-bit words

    def close(self) -> None:
        """Close the descriptor."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> bool:
        try:
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        self.identity = identity_of(self._descriptor)
        return True

    def _fill(self, view: memoryview, offset: int) -> int:
        filled = 0
        while filled < view.nbytes:
            count = os.preadv(self._descriptor, [view[filled:]], offset + filled)
            if count == 0:
                break
            filled += count
        return filled
