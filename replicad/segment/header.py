"""The front of a segment: which database and epoch it belongs to, and the state it continues from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec

from replicad.document import MAX_TXID, EpochNumber, Hex16, Name, PageCount, decode_json, encode_document
from replicad.document import format_checksum as _hex
from replicad.errors import Damaged, NewerFormat
from replicad.position import TXID, Epoch, is_page_size
from replicad.segment.form import HEAD, HEAD_MAGIC, MAX_HEADER_BYTES, VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentHeader:
    """What is known of a segment before its first page."""

    database_id: str
    epoch: Epoch
    page_size: int
    first_txid: TXID
    checksum_before: int  # of the state after transaction first_txid - 1
    pages_before: int  # size of the database in that state


class _StoredHeader(msgspec.Struct, frozen=True, kw_only=True):
    """The header as JSON."""

    database_id: Name
    epoch: EpochNumber
    page_size: int
    first_txid: Annotated[int, msgspec.Meta(ge=1, le=MAX_TXID)]
    checksum_before: Hex16
    pages_before: PageCount


def encode_head(header: SegmentHeader) -> bytes:
    """Return magic, version and header.

    Raises:
        ValueError: a field is out of range.
    """
    if not is_page_size(header.page_size):
        raise ValueError(f"page size {header.page_size} is not one of SQLite's")
    body = encode_document(
        _StoredHeader(
            database_id=header.database_id,
            epoch=header.epoch,
            page_size=header.page_size,
            first_txid=header.first_txid,
            checksum_before=_hex(header.checksum_before),
            pages_before=header.pages_before,
        )
    )
    msgspec.json.decode(body, type=_StoredHeader)  # the constructor checks nothing; this raises a ValueError
    return HEAD.pack(HEAD_MAGIC, VERSION, len(body)) + body


def read_head(head: bytes, *, what: str) -> SegmentHeader:
    """Return the header in the front `head` of a segment, which may go on behind it.

    Raises:
        Damaged: the bytes are not the front of a segment, or end within it.
        NewerFormat: they are of a later version.
    """
    if len(head) < HEAD.size:
        raise Damaged(what=what, where="head", expected=f"at least {HEAD.size} bytes", found=len(head))
    magic, version, length = HEAD.unpack_from(head)
    if magic != HEAD_MAGIC:
        raise Damaged(what=what, where="magic", expected=HEAD_MAGIC, found=magic)
    if version > VERSION:
        raise NewerFormat(what=what, found=version, expected=VERSION)
    if version < VERSION:
        raise Damaged(what=what, where="version", expected=VERSION, found=version)
    if not length <= min(MAX_HEADER_BYTES, len(head) - HEAD.size):
        expected = f"at most {min(MAX_HEADER_BYTES, len(head) - HEAD.size)}"
        raise Damaged(what=what, where="header length", expected=expected, found=length)
    stored = decode_json(head[HEAD.size : HEAD.size + length], _StoredHeader, what=what)
    if not is_page_size(stored.page_size):
        raise Damaged(what=what, where="page_size", expected="a power of two, 512 to 65536", found=stored.page_size)
    return SegmentHeader(
        database_id=stored.database_id,
        epoch=Epoch(stored.epoch),
        page_size=stored.page_size,
        first_txid=TXID(stored.first_txid),
        checksum_before=int(stored.checksum_before, 16),
        pages_before=stored.pages_before,
    )
