"""Putting a state together from a snapshot of Litestream 0.3 and the WAL since.

Each object is an LZ4 frame with a checksum of its own. The WAL's frames are applied as they come; a WAL that ends in
the middle of a transaction was not stored like this, and is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.errors import Damaged
from replicad.position import is_page_size
from replicad.wal import FRAME_HEADER_BYTES, HEADER_BYTES, SaltsMoved, parse_frames, parse_header

if TYPE_CHECKING:
    from replicad.litestream.codecs import Codecs, FrameDecoder
    from replicad.litestream.generations import PackedFile
    from replicad.litestream.spool import Spool

_PIECE_BYTES = 1 << 20  # unpacked at once
_FILE_MAGIC = b"SQLite format 3\0"
_AGE_MAGIC = b"age-encryption.org/"
_LARGEST_PAGE_AS_STORED = 1


class WALApplier:
    """Applies files in the order of a plan. All methods block."""

    def __init__(self, codecs: Codecs, spool: Spool) -> None:
        self._codecs = codecs
        self._spool = spool
        self._frame: FrameDecoder | None = None
        self._offset = 0  # of the next raw byte of the WAL at hand
        self._buffer = bytearray()  # of the WAL, not taken yet
        self._salts = b""
        self._open_frames = 0  # since the last commit

    def begin(self, file: PackedFile) -> None:
        """Go on with the next file.

        Raises:
            Damaged: something is missing before it.
        """
        self._frame = self._codecs.frame()
        if file.offset is None:
            return
        if file.offset == 0:
            self._end_wal(file)
            self._offset, self._salts = 0, b""
        if file.offset != self._offset:
            expected = f"{self._offset}, where the piece before it ends"
            raise self._damaged(file, "offset", expected, str(file.offset))

    def feed(self, file: PackedFile, data: bytes) -> None:
        """Take some bytes of it.

        Raises:
            Damaged: they cannot be right.
            NoSpace, FileUnusable: they cannot be written.
        """
        if self._frame is None:
            raise AssertionError
        if data.startswith(_AGE_MAGIC):
            raise self._damaged(file, "content", "LZ4", "age: this replica is encrypted, use Litestream's own restore")
        while data or not (self._frame.eof or self._frame.needs_input):
            try:
                raw = self._frame.decompress(data, _PIECE_BYTES)
            except (RuntimeError, EOFError) as error:
                raise self._damaged(file, "content", "one LZ4 frame", str(error)) from error
            data = b""
            if file.offset is None:
                self._spool.append(raw)
            else:
                self._offset += len(raw)
                self._buffer += raw
                self._apply(file)

    def end(self, file: PackedFile) -> None:
        """Take note that the file was read to its end.

        Raises:
            Damaged: it is not whole.
        """
        if self._frame is None or not self._frame.eof or self._frame.unused_data:
            raise self._damaged(file, "content", "one whole LZ4 frame", "less, or more")
        if file.offset is None:
            self._end_snapshot(file)
        elif self._buffer or self._open_frames:
            raise self._damaged(file, "its end", "the end of a transaction", "the middle of one")

    def finish(self, file: PackedFile) -> None:
        """Take note that this was the last file; there is no checksum of the state to hold it against."""
        self._end_wal(file)

    def _end_snapshot(self, file: PackedFile) -> None:
        head = self._spool.read(0, 18)
        page_size = int.from_bytes(head[16:], "big")
        page_size = 65536 if page_size == _LARGEST_PAGE_AS_STORED else page_size
        if not head.startswith(_FILE_MAGIC) or not is_page_size(page_size):
            raise self._damaged(file, "content", "a SQLite database", "something else")
        self._spool.page_size = page_size
        size_bytes = self._spool.size_bytes()
        if size_bytes % page_size:
            raise self._damaged(file, "size", f"whole pages of {page_size} bytes", f"{size_bytes} bytes")
        self._spool.pages = size_bytes // page_size

    def _end_wal(self, file: PackedFile) -> None:
        if self._buffer or self._open_frames:
            raise self._damaged(file, "the WAL before it", "whole transactions", "a part of one")

    def _apply(self, file: PackedFile) -> None:
        """Apply the whole frames that are there."""
        if not self._salts:
            if len(self._buffer) < HEADER_BYTES:
                return
            self._take_header(file)
        width = self._spool.page_size + FRAME_HEADER_BYTES
        whole_bytes = len(self._buffer) // width * width
        raw = bytes(self._buffer[:whole_bytes])
        del self._buffer[:whole_bytes]
        try:
            frames = parse_frames(memoryview(raw), page_size=self._spool.page_size, salts=self._salts)
        except SaltsMoved as error:
            raise self._damaged(file, "frames", "those of one WAL", "another's among them") from error
        for pgno, pages, image in zip(frames.pgnos, frames.commit_pages, frames.images, strict=True):
            self._spool.write(pgno, image)
            self._open_frames += 1
            if pages:
                self._spool.commit(pages)
                self._open_frames = 0

    def _take_header(self, file: PackedFile) -> None:
        header = parse_header(bytes(self._buffer[:HEADER_BYTES]))
        if header is None:
            raise self._damaged(file, "its front", "the header of a WAL", "something else")
        if header.page_size != self._spool.page_size:
            raise self._damaged(file, "page size", f"{self._spool.page_size}", f"{header.page_size}")
        self._salts = header.salts
        del self._buffer[:HEADER_BYTES]

    def _damaged(self, file: PackedFile, where: str, expected: str, found: str) -> Damaged:
        return Damaged(what=file.key, where=where, expected=expected, found=found)
