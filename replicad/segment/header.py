"""The front of a segment: which database and epoch it belongs to, and the state it continues from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

import msgspec

from replicad.document import MAX_PAGES, MAX_TXID, MAX_UINT32, EpochNumber, Hex16, Name, PageCount, decode_json
from replicad.errors import Damaged, NewerFormat
from replicad.position import TXID, Epoch, is_page_size
from replicad.segment.form import FIRST_VERSION, HEAD, HEAD_MAGIC, MAX_HEADER_BYTES, VERSION
from replicad.segment.varint import Reader, write_varints

_HEX_ID = re.compile("[0-9a-f]{32}")
_HEX_ID_BYTES = 16
_MAX_ID_CHARACTERS = 256
_CHECKSUM_BYTES = 8
_LOG_PAGE_SIZES = range(9, 17)


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
    """The header of version 1, which is JSON."""

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
    for name, number, least, most in (
        ("epoch", header.epoch, 1, MAX_UINT32),
        ("first_txid", header.first_txid, 1, MAX_TXID),
        ("checksum_before", header.checksum_before, 0, (1 << 64) - 1),
        ("pages_before", header.pages_before, 0, MAX_PAGES),
        ("length of database_id", len(header.database_id), 1, _MAX_ID_CHARACTERS),
    ):
        if not least <= number <= most:
            raise ValueError(f"{name}: Expected {least} to {most}, found {number}")
    body = bytearray()
    if _HEX_ID.fullmatch(header.database_id):
        body += b"\0" + bytes.fromhex(header.database_id)
    else:
        text = header.database_id.encode()
        write_varints(body, (len(text),))
        body += text
    write_varints(body, (header.epoch, header.page_size.bit_length() - 1, header.first_txid))
    body += header.checksum_before.to_bytes(_CHECKSUM_BYTES, "little")
    write_varints(body, (header.pages_before,))
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
    if version < FIRST_VERSION:
        raise Damaged(what=what, where="version", expected=f"{FIRST_VERSION} to {VERSION}", found=version)
    if not length <= min(MAX_HEADER_BYTES, len(head) - HEAD.size):
        expected = f"at most {min(MAX_HEADER_BYTES, len(head) - HEAD.size)}"
        raise Damaged(what=what, where="header length", expected=expected, found=length)
    body = head[HEAD.size : HEAD.size + length]
    return _read_json(body, what) if version == FIRST_VERSION else _read_binary(body, what)


def _read_json(body: bytes, what: str) -> SegmentHeader:
    stored = decode_json(body, _StoredHeader, what=what)
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


def _read_binary(body: bytes, what: str) -> SegmentHeader:
    reader = Reader(body, what=what, where="header")
    id_bytes = reader.varint()
    database_id = _text(reader.take(id_bytes), what) if id_bytes else reader.take(_HEX_ID_BYTES).hex()
    epoch, log_page_size, first_txid = reader.varints(3)
    checksum_before = int.from_bytes(reader.take(_CHECKSUM_BYTES), "little")
    pages_before = reader.varint()
    reader.end()
    for where, number, allowed in (
        ("epoch", epoch, range(1, MAX_UINT32 + 1)),
        ("logarithm of the page size", log_page_size, _LOG_PAGE_SIZES),
        ("first_txid", first_txid, range(1, MAX_TXID + 1)),
        ("pages_before", pages_before, range(MAX_PAGES + 1)),
    ):
        if number not in allowed:
            raise Damaged(what=what, where=where, expected=f"{allowed[0]} to {allowed[-1]}", found=number)
    return SegmentHeader(
        database_id=database_id,
        epoch=Epoch(epoch),
        page_size=1 << log_page_size,
        first_txid=TXID(first_txid),
        checksum_before=checksum_before,
        pages_before=pages_before,
    )


def _text(stored: memoryview, what: str) -> str:
    try:
        text = bytes(stored).decode()
    except UnicodeDecodeError as error:
        raise Damaged(what=what, where="database_id", expected="UTF-8", found=str(error)) from error
    if len(text) > _MAX_ID_CHARACTERS:
        expected = f"at most {_MAX_ID_CHARACTERS} characters"
        raise Damaged(what=what, where="database_id", expected=expected, found=len(text))
    return text
