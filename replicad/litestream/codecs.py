"""LZ4 and CRC-64, from libraries that only somebody who moves needs: the extra `replicad[litestream]`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from replicad.errors import UsageError

if TYPE_CHECKING:
    from typing_extensions import Buffer


class FrameDecoder(Protocol):
    """Unpacks one LZ4 frame as its bytes come; checks the checksum the frame carries."""

    @property
    def eof(self) -> bool:
        """Whether the frame is at its end."""

    @property
    def needs_input(self) -> bool:
        """Whether all that can be had without further bytes was had."""

    @property
    def unused_data(self) -> bytes | None:
        """What came behind the frame's end."""

    def decompress(self, data: Buffer, max_length: int = -1) -> bytes:
        """Return what these bytes unpack to, at most so much of it; raises RuntimeError for bytes that are damaged."""


class _Block(Protocol):
    LZ4BlockError: type[Exception]

    def decompress(self, source: Buffer, uncompressed_size: int) -> bytes: ...


class _Frame(Protocol):
    def LZ4FrameDecompressor(self) -> FrameDecoder: ...  # noqa: N802 - lz4's name


class _Crc64(Protocol):
    def go_iso(self, data: Buffer, initial: int | None = None) -> int: ...


class Codecs:
    """The functions of both libraries.

    Raises:
        UsageError: they are not installed.
    """

    def __init__(self) -> None:
        try:
            self._block = cast("_Block", import_module("lz4.block"))
            self._frame = cast("_Frame", import_module("lz4.frame"))
            self._crc64 = cast("_Crc64", import_module("fastcrc.crc64"))
        except ImportError as error:
            raise UsageError(
                where="--from-litestream",
                expected="the packages lz4 and fastcrc",
                found=f"no {error.name}",
                hint="Install them: pip install 'replicad[litestream]'.",
            ) from error

    def unpack_block(self, packed: Buffer, raw_bytes: int) -> bytes | None:
        """Return what an LZ4 block of at most `raw_bytes` raw bytes holds; None: it is damaged."""
        try:
            return self._block.decompress(packed, uncompressed_size=raw_bytes)
        except (self._block.LZ4BlockError, ValueError):
            return None

    def frame(self) -> FrameDecoder:
        """Return what unpacks one LZ4 frame."""
        return self._frame.LZ4FrameDecompressor()

    def crc64(self, data: Buffer, before: int = 0) -> int:
        """Return the CRC-64/GO-ISO of data, going on from that of what came before."""
        return self._crc64.go_iso(data, before)
