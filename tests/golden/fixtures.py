"""The objects kept in tests/golden: how each is made, and the one place that may write them again.

They were written by the first version of each format and stand for every bucket in the world: a change that cannot read
them loses people's backups. To add one, run `REPLICAD_WRITE_GOLDEN=1 pytest tests/golden`; it writes
what is missing and never touches what is there.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import zstandard

from replicad.ownership.records import Claim, EpochEnd, EpochStart, encode_record
from replicad.position import NO_WAL, TXID, Epoch, WALPosition
from replicad.segment import Member, SegmentHeader, encode_rollup
from replicad.snapshot import Chunk, Manifest, chunk_name, compress_chunk, encode_manifest
from tests.support.segments import Written, encode

FOLDER = Path(__file__).parent
WRITTEN_WITH = "zstd-1.5.7"
"""The version of zstd that packed the objects; another one may pack to other bytes."""

ZSTD = "zstd-" + ".".join(map(str, zstandard.ZSTD_VERSION))
DATABASE_ID = "5b1c4b8c2f0d4a7e9a0b3c6d8e1f2a4b"
WAL_END = WALPosition(
    salts=bytes.fromhex("0102030405060708"), frame=4321, frame_checksum=bytes.fromhex("f1f2f3f4f5f6f7f8")
)


def page(number: int, page_size: int) -> bytes:
    """Return a page that is half noise, half a text, and the same for ever."""
    noise = b"".join(hashlib.sha256(b"%d/%d" % (number, part)).digest() for part in range(page_size // 64))
    return (noise + b"golden page " * page_size)[:page_size]


SMALL = (
    SegmentHeader(
        database_id=DATABASE_ID,
        epoch=Epoch(2),
        page_size=512,
        first_txid=TXID(4711),
        checksum_before=0x00FF_1234_5678_9ABC,
        pages_before=3,
    ),
    (
        Written(
            commit_ms=1_764_547_200_123,
            pages=4,
            checksum=0x8000_0000_0000_0001,
            images=((1, page(1, 512)), (4, page(4, 512)), (1, page(11, 512))),
        ),
        Written(commit_ms=1_764_547_200_123, pages=2, checksum=0, images=()),
        Written(
            commit_ms=1_764_547_200_999,
            pages=2**32 - 2,
            checksum=0xFFFF_FFFF_FFFF_FFFF,
            images=((2**32 - 2, page(5, 512)), (2, bytes(512))),
        ),
    ),
)
"""Three transactions in blocks of two pages: a page twice, no page at all, the highest page number."""

LARGE_PAGES = (
    SegmentHeader(
        database_id="\u00fcber/\u6570\u636e\u5e93",
        epoch=Epoch(2**32 - 1),
        page_size=65536,
        first_txid=TXID(2**63 - 1),
        checksum_before=0,
        pages_before=0,
    ),
    (Written(commit_ms=0, pages=1, checksum=1, images=((1, page(6, 65536)),)),),
)
"""The largest page size and the largest numbers, a name beyond ASCII, and no WAL."""

REFERENCES = ((2, page(12, 512)), (1, page(1, 512)))
REFERRING = (
    SMALL[0],
    (
        Written(commit_ms=1_764_547_200_123, pages=4, checksum=7, images=((1, page(1, 512)[:500] + bytes(12)),)),
        Written(commit_ms=1_764_547_200_173, pages=4, checksum=8, images=((2, page(12, 512)[8:] + b"golden b"),)),
    ),
)
"""Pages that are nearly what they were in the state before."""

WIDE = (
    SMALL[0],
    tuple(
        Written(
            commit_ms=1_764_547_200_123 + number,
            pages=4 + number,
            checksum=number,
            images=((number % 5 + 1, number.to_bytes(4, "big") * 128),),
        )
        for number in range(600)
    ),
)
"""More transactions than an index has integers of variable length for."""

FOLLOWING = (
    replace(SMALL[0], first_txid=TXID(4714), checksum_before=0xFFFF_FFFF_FFFF_FFFF, pages_before=2**32 - 2),
    (Written(commit_ms=1_764_547_201_000, pages=4, checksum=9, images=((3, page(13, 512)),)),),
)
"""What goes on where SMALL ends."""

PIECES = (page(7, 1024) + page(8, 1024), page(9, 1024))
MANIFEST = Manifest(
    database_id=DATABASE_ID,
    epoch=2,
    txid=4713,
    commit_ms=1_764_547_200_999,
    page_size=1024,
    pages=3,
    checksum="8000000000000001",
    chunk_pages=2,
    created_ms=1_764_547_201_456,
    reason="interval",
    chunks=tuple(
        # sizes as zstd 1.5.7 gave them
        Chunk(name=chunk_name(raw), epoch=epoch, stored_bytes=stored_bytes, raw_bytes=len(raw))
        for epoch, raw, stored_bytes in ((1, PIECES[0], 1062), (2, PIECES[1], 543))
    ),
)
CLAIM = Claim(id="c0ffee00c0ffee00", epoch=2, claimed_ms=1_764_547_100_000, instance="web-7d9f")
START = EpochStart(
    database_id=DATABASE_ID,
    epoch=2,
    parent_epoch=1,
    parent_txid=4710,
    checksum="00ff123456789abc",
    pages=3,
    started_ms=1_764_547_100_321,
)
END = EpochEnd(epoch=2, txid=4713, checksum="ffffffffffffffff", pages=4_294_967_294, ended_ms=1_764_547_300_000)


ONLY_READ = ("small.seg", "large-pages.seg")
"""Segments of version 1, which today's code does not write."""


def rollup() -> bytes:
    """Return SMALL and FOLLOWING in one object."""
    members = []
    for head, transactions in (SMALL, FOLLOWING):
        body = encode(head, transactions, block_bytes=1024, wal_end=WAL_END)
        last = TXID(head.first_txid + len(transactions) - 1)
        last_ms = transactions[-1].commit_ms
        member = Member(first=head.first_txid, last=last, last_ms=last_ms, offset=0, size_bytes=len(body))
        members.append((member, body))
    return encode_rollup(members)


def objects() -> dict[str, bytes]:
    """Return every golden object as today's code writes it, by its file's name."""
    return {
        "small-2.seg": encode(*SMALL, block_bytes=1024, wal_end=WAL_END),
        "large-pages-2.seg": encode(*LARGE_PAGES, wal_end=NO_WAL),
        "referring-2.seg": encode(*REFERRING, wal_end=WAL_END, references=REFERENCES),
        "wide-2.seg": encode(*WIDE, wal_end=WAL_END),
        "rollup.1.segs": rollup(),
        "manifest.json": encode_manifest(MANIFEST),
        "chunk-0.zst": compress_chunk(PIECES[0]),
        "chunk-1.zst": compress_chunk(PIECES[1]),
        "claim.json": encode_record(CLAIM),
        "start.json": encode_record(START),
        "end.json": encode_record(END),
    }


def write_missing() -> None:
    """Write the objects that have no file yet."""
    for name, body in objects().items():
        if not (FOLDER / name).exists():
            (FOLDER / name).write_bytes(body)
