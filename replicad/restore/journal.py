"""SQLite's rollback journal, as its file format documents it: the bytes that put a database back as it was.

A restore that changes a database where it stands writes this journal first. Whatever ends it halfway, SQLite itself
finds a hot journal beside the file and rolls it back before anyone can read: the application, the next restore, the
next start. A mark in what SQLite leaves empty tells the next restore that the journal is one of ours.

Source: https://www.sqlite.org/fileformat2.html#the_rollback_journal
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_MAGIC = bytes.fromhex("d9d505f920a163d7")
_HEADER = struct.Struct(">8sIIIII")  # magic, records, nonce, pages before, bytes of a sector, page size
_NUMBER = struct.Struct(">I")
_SECTOR_BYTES = 512
_MARK = b"replicad: restore in place"
_SAMPLED_BYTES = 200  # one byte in so many is added up, from behind


def journal_path(database: Path) -> Path:
    """Return where SQLite looks for the journal of a database."""
    return database.with_name(f"{database.name}-journal")


def journal_header(*, records: int, nonce: int, pages: int, page_size: int) -> bytes:
    """Return the head of a journal.

    Args:
        records: how many pages follow.
        nonce: 32 random bits, so that records of an older journal in the same blocks do not fit.
        pages: size of the database that is gone back to.
        page_size: in bytes.
    """
    head = _HEADER.pack(_MAGIC, records, nonce, pages, _SECTOR_BYTES, page_size)
    return (head + _MARK).ljust(_SECTOR_BYTES, b"\0")


def journal_record(pgno: int, image: bytes, *, nonce: int) -> bytes:
    """Return what puts one page back."""
    checksum = nonce + sum(image[len(image) - _SAMPLED_BYTES : 0 : -_SAMPLED_BYTES])
    return _NUMBER.pack(pgno) + image + _NUMBER.pack(checksum & 0xFFFF_FFFF)


def is_ours(journal: Path) -> bool:
    """Return whether a journal stands there, and a restore wrote it."""
    try:
        with journal.open("rb") as file:
            head = file.read(_HEADER.size + len(_MARK))
    except FileNotFoundError:
        return False
    return head.startswith(_MAGIC) and head.endswith(_MARK)
