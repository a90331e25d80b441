"""Putting a state together from LTX files, each checked as it goes by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.errors import Damaged
from replicad.litestream.ltx import CHECKSUM_FLAG, LTXDecoder

if TYPE_CHECKING:
    from replicad.litestream.codecs import Codecs
    from replicad.litestream.ltx import LTXHeader
    from replicad.litestream.plan import LTXFile
    from replicad.litestream.spool import Spool


class LTXApplier:
    """Applies files in the order of a plan. All methods block."""

    def __init__(self, codecs: Codecs, spool: Spool) -> None:
        self._codecs = codecs
        self._spool = spool
        self._before: LTXHeader | None = None  # of the file before the one at hand
        self._checksum: int | None = None  # of the state behind it; None: not kept
        self._decoder: LTXDecoder | None = None
        self._started = False  # the header of the file at hand was looked at

    @property
    def committed_ms(self) -> int:
        """When the newest transaction was written, Unix ms."""
        return self._before.ms if self._before else 0

    def begin(self, file: LTXFile) -> None:
        """Go on with the next file."""
        self._decoder = LTXDecoder(self._codecs, what=file.key)
        self._started = False

    def feed(self, file: LTXFile, data: bytes) -> None:
        """Take some bytes of it.

        Raises:
            Damaged: they cannot be right.
            NoSpace, FileUnusable: they cannot be written.
        """
        if self._decoder is None:
            raise AssertionError
        for pgno, page in self._decoder.feed(data):
            if not self._started and self._decoder.header is not None:
                self._start(file, self._decoder.header)
            self._spool.write(pgno, page)

    def end(self, file: LTXFile) -> None:
        """Take note that the file was read to its end.

        Raises:
            Damaged: it is not whole, or not what it says it is.
        """
        if self._decoder is None:
            raise AssertionError
        header = self._decoder.finish()
        self._check_header(file, header)
        self._spool.page_size = header.page_size
        self._spool.commit(header.pages)
        self._before, self._checksum = header, self._decoder.checksum_after

    def finish(self, file: LTXFile) -> None:
        """Hold the state against the checksum of it, where the last file keeps one.

        Raises:
            Damaged: it is another one.
        """
        if self._checksum is None:
            return
        found = 0
        for pgno, page in self._spool.numbered_pages():
            found ^= self._codecs.crc64(page, self._codecs.crc64(pgno.to_bytes(4, "big")))
        if found | CHECKSUM_FLAG != self._checksum:
            raise Damaged(
                what=file.key,
                where="checksum of the state behind it",
                expected=f"{self._checksum:016x}",
                found=f"{found | CHECKSUM_FLAG:016x}",
            )

    def _start(self, file: LTXFile, header: LTXHeader) -> None:
        """Look at the header before the first page is written: it may be of another database."""
        self._check_header(file, header)
        if self._before is None:
            self._spool.start(header.page_size, header.pages)
        self._started = True

    def _check_header(self, file: LTXFile, header: LTXHeader) -> None:
        expected, found = f"{file.first} to {file.last}", f"{header.first} to {header.last}"
        if expected != found:
            raise Damaged(what=file.key, where="TXIDs", expected=f"{expected}, as in its name", found=found)
        before = self._before
        if before is None:
            if not header.is_snapshot:
                raise Damaged(what=file.key, where="TXIDs", expected="a file that begins with 1", found=found)
            return
        if header.page_size != before.page_size:
            expected = f"{before.page_size}, as in the files before it"
            raise Damaged(what=file.key, where="page size", expected=expected, found=header.page_size)
        joins = header.first == before.last + 1
        if joins and None not in (self._checksum, header.checksum_before) and self._checksum != header.checksum_before:
            raise Damaged(
                what=file.key,
                where="checksum of the state before it",
                expected=f"{self._checksum:016x}",
                found=f"{header.checksum_before:016x}",
            )
