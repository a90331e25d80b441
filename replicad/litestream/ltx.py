"""An LTX file taken apart as its bytes come: the pages that a run of transactions left behind.

The format, as Litestream 0.5 writes it (github.com/superfly/ltx; the code is ahead of the text there). Numbers are
big-endian.

    header, 100 bytes:  "LTX1" · flags (4) · page size (4) · pages of the database afterwards (4) · first TXID (8)
                        · last TXID (8) · Unix ms (8) · checksum before (8) · where in which WAL (32) · zeros
    pages:              number (4) · flags (2) · with flag 1 the size (4) of an LZ4 block, and the block; without it
                        an LZ4 frame · in order of their numbers, the last one's header being all zeros
    index:              number, offset, size of each page as varints · a zero · size of the index (8)
    trailer, 16 bytes:  checksum afterwards (8) · checksum of the file (8)

A file that begins with TXID 1 holds every page. The checksum of the file is a CRC-64 (ISO polynomial, as Go has it)
over all but itself, with the pages as they are unpacked. The checksum of a state is the XOR of the CRC-64 of each
page behind its number, the lock page aside; a header with flag 2 says that it is left out, as Litestream does.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from replicad.errors import Damaged
from replicad.position import is_page_size, lock_page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replicad.litestream.codecs import Codecs, FrameDecoder

HEADER_BYTES = 100
TRAILER_BYTES = 16
CHECKSUM_FLAG = 1 << 63
"""Set in every checksum, so that none is zero."""

_HEADER = struct.Struct(">4sIIIQQqQ")
_MAGIC = b"LTX1"
_NO_CHECKSUM = 2  # a header's flag
_SIZED = 1  # a page's flag
_PAGE_HEADER_BYTES = 6
_NO_PAGE = bytes(_PAGE_HEADER_BYTES)
_SIZE_BYTES = 4
_INDEX_TAIL_BYTES = 1 + 8  # the zero behind the last entry, and the size


@dataclass(frozen=True, slots=True, kw_only=True)
class LTXHeader:
    """What a file is about."""

    page_size: int
    pages: int  # size of the database afterwards
    first: int  # TXIDs of Litestream's, not of replicad's
    last: int
    ms: int  # when it was written, Unix ms
    checksum_before: int | None  # of the state; None: not kept
    keeps_checksum: bool

    @property
    def is_snapshot(self) -> bool:
        """Whether it holds every page."""
        return self.first == 1


class _Stage(Enum):
    HEADER = auto()
    PAGES = auto()
    FRAME = auto()  # inside an LZ4 frame
    REST = auto()


class LTXDecoder:
    """One file. `feed` it to the end, then `finish`; only then is what it gave proven.

    Args:
        codecs: LZ4 and CRC-64.
        what: the file, for messages.
    """

    def __init__(self, codecs: Codecs, *, what: str) -> None:
        self.header: LTXHeader | None = None
        self.checksum_after: int | None = None  # of the state, known behind `finish`; None: not kept
        self._codecs = codecs
        self._what = what
        self._stage = _Stage.HEADER
        self._buffer = bytearray()
        self._offset = 0  # in the file, of the buffer's front
        self._crc = 0
        self._pgno = 0  # of the page at hand, or of the one before
        self._page_at = 0
        self._frame: FrameDecoder | None = None
        self._page = bytearray()  # what the frame gave so far
        self._index_crc, self._index_bytes = 0, 0  # of the index that these pages should have

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Iterate over the pages that are whole with these bytes; must be run to its end.

        Raises:
            Damaged: the bytes are not those of an LTX file.
        """
        self._buffer += data
        if self._stage is _Stage.HEADER and len(self._buffer) >= HEADER_BYTES:
            self._take_header()
        while self._stage in {_Stage.PAGES, _Stage.FRAME}:
            page = self._next_frame() if self._stage is _Stage.FRAME else self._next_page()
            if page is not None:
                yield self._pgno, page
            elif self._stage is not _Stage.FRAME or not self._buffer:
                return

    def finish(self) -> LTXHeader:
        """Return the header, when the file was whole and every checksum in it is right.

        Raises:
            Damaged: it is not.
        """
        if self.header is None or self._stage is not _Stage.REST:
            raise self._damaged("its end", "pages up to a closing one", f"nothing behind byte {self._end}: truncated")
        expected_bytes = self._index_bytes + _INDEX_TAIL_BYTES + TRAILER_BYTES
        if len(self._buffer) != expected_bytes:
            raise self._damaged("index and trailer", f"{expected_bytes} bytes", f"{len(self._buffer)}")
        rest = memoryview(self._buffer)
        index, tail, trailer = (
            rest[: self._index_bytes],
            rest[self._index_bytes : -TRAILER_BYTES],
            rest[-TRAILER_BYTES:],
        )
        after, stored = struct.unpack(">QQ", trailer)
        found = self._codecs.crc64(rest[:-8], self._crc) | CHECKSUM_FLAG
        if found != stored:
            raise self._damaged("checksum of the file", f"{stored:016x}", f"{found:016x}")
        index_size = struct.pack(">xQ", self._index_bytes + 1)
        if self._codecs.crc64(index) != self._index_crc or bytes(tail) != index_size:
            raise self._damaged("index", "the places of the pages before it", "others")
        if self.header.is_snapshot and self._pgno != _last_page(self.header):
            raise self._damaged("pages", f"all {self.header.pages} of a snapshot", f"none behind page {self._pgno}")
        self.checksum_after = after if self.header.keeps_checksum else None
        return self.header

    @property
    def _end(self) -> int:
        return self._offset + len(self._buffer)

    def _take(self, n_bytes: int) -> bytes:
        taken = bytes(self._buffer[:n_bytes])
        del self._buffer[:n_bytes]
        self._offset += n_bytes
        return taken

    def _take_header(self) -> None:
        raw = self._take(HEADER_BYTES)
        self._crc = self._codecs.crc64(raw)
        magic, flags, page_size, pages, first, last, ms, before = _HEADER.unpack_from(raw)
        if magic != _MAGIC:
            raise self._damaged("magic", _MAGIC.decode(), repr(magic))
        if flags & ~_NO_CHECKSUM:
            raise self._damaged("flags", "0 or 2", f"{flags}")
        if not is_page_size(page_size):
            raise self._damaged("page size", "a power of two, 512 to 65536", f"{page_size}")
        if not 0 < first <= last:
            raise self._damaged("TXIDs", "a first one, and a last one not before it", f"{first} and {last}")
        keeps = not flags & _NO_CHECKSUM
        self.header = LTXHeader(
            page_size=page_size,
            pages=pages,
            first=first,
            last=last,
            ms=ms,
            checksum_before=before if keeps and first > 1 else None,
            keeps_checksum=keeps,
        )
        self._stage = _Stage.PAGES

    def _next_page(self) -> bytes | None:
        """Return the next page; None: there is none yet, or it is a frame, or there is none any more."""
        if self.header is None or len(self._buffer) < _PAGE_HEADER_BYTES:
            return None
        raw = bytes(self._buffer[:_PAGE_HEADER_BYTES])
        if raw == _NO_PAGE:
            self._crc = self._codecs.crc64(self._take(_PAGE_HEADER_BYTES), self._crc)
            self._stage = _Stage.REST
            return None
        pgno, flags = struct.unpack(">IH", raw)
        self._check_page(self.header, pgno, flags)
        if not flags & _SIZED:
            self._begin_page(pgno, _PAGE_HEADER_BYTES)
            self._frame = self._codecs.frame()
            self._stage = _Stage.FRAME
            return None
        head_bytes = _PAGE_HEADER_BYTES + _SIZE_BYTES
        if len(self._buffer) < head_bytes:
            return None
        (packed_bytes,) = struct.unpack_from(">I", self._buffer, _PAGE_HEADER_BYTES)
        most_bytes = _most_packed_bytes(self.header.page_size)
        if packed_bytes > most_bytes:
            raise self._damaged(f"size of page {pgno}", f"at most {most_bytes} bytes", f"{packed_bytes}")
        if len(self._buffer) < head_bytes + packed_bytes:
            return None
        self._begin_page(pgno, head_bytes)
        return self._end_page(self._codecs.unpack_block(self._take(packed_bytes), self.header.page_size))

    def _next_frame(self) -> bytes | None:
        """Go on with a page that is an LZ4 frame; return it when it is whole."""
        if self.header is None or self._frame is None or not self._buffer:
            return None
        packed = self._take(min(len(self._buffer), _most_packed_bytes(self.header.page_size)))
        try:
            self._page += self._frame.decompress(packed, self.header.page_size + 1)
        except RuntimeError as error:
            raise self._damaged(f"page {self._pgno}", "an LZ4 frame", str(error)) from error
        if len(self._page) > self.header.page_size:
            raise self._damaged(f"page {self._pgno}", f"{self.header.page_size} bytes", "more")
        if not self._frame.eof:
            return None
        unused = self._frame.unused_data or b""
        self._buffer[:0] = unused
        self._offset -= len(unused)
        self._stage = _Stage.PAGES
        return self._end_page(bytes(self._page))

    def _check_page(self, header: LTXHeader, pgno: int, flags: int) -> None:
        if flags & ~_SIZED:
            raise self._damaged(f"flags of page {pgno}", "0 or 1", f"{flags}")
        lock = lock_page(header.page_size)
        if header.is_snapshot:
            following = self._pgno + 1 + (self._pgno + 1 == lock)
            if pgno != following:
                raise self._damaged("pages", f"page {following} of a snapshot", f"page {pgno}")
        if not self._pgno < pgno <= header.pages or pgno == lock:
            expected = f"one behind {self._pgno} and up to {header.pages}, but for the lock page"
            raise self._damaged("number of a page", expected, f"{pgno}")

    def _begin_page(self, pgno: int, head_bytes: int) -> None:
        self._pgno, self._page_at = pgno, self._offset
        self._page = bytearray()
        self._crc = self._codecs.crc64(self._take(head_bytes), self._crc)

    def _end_page(self, page: bytes | None) -> bytes:
        if self.header is None or page is None or len(page) != self.header.page_size:
            found = "something else" if page is None else f"{len(page)} bytes"
            raise self._damaged(f"page {self._pgno}", "an LZ4 block of one page", found)
        self._crc = self._codecs.crc64(page, self._crc)
        entry = b"".join(map(_varint, (self._pgno, self._page_at, self._offset - self._page_at)))
        self._index_crc = self._codecs.crc64(entry, self._index_crc)
        self._index_bytes += len(entry)
        return page

    def _damaged(self, where: str, expected: str, found: str) -> Damaged:
        return Damaged(what=self._what, where=where, expected=expected, found=found)


def _last_page(header: LTXHeader) -> int:
    """Return the last page of the database that holds anything."""
    return header.pages - (header.pages == lock_page(header.page_size))


def _most_packed_bytes(page_size: int) -> int:
    """Return how large an LZ4 block or frame of one page can be: what does not shrink grows a little."""
    return page_size + page_size // 255 + 64


def _varint(number: int) -> bytes:
    packed = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - what seven bits hold
        packed.append(number & 0x7F | 0x80)
        number >>= 7
    packed.append(number)
    return bytes(packed)
