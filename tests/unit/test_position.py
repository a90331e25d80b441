from __future__ import annotations

import dataclasses

import apsw
import pytest

from replicad.position import (
    LOCK_BYTE_OFFSET,
    MAX_PAGE_SIZE,
    MIN_PAGE_SIZE,
    NO_WAL,
    TXID,
    Epoch,
    Position,
    WALPosition,
    is_page_size,
    lock_page,
)

PAGE_SIZES = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536]


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_lock_page_holds_the_lock_bytes(page_size: int) -> None:
    """The lock page is the one in which the byte at 2^30 lies, at its very beginning."""
    number = lock_page(page_size)
    assert (number - 1) * page_size == LOCK_BYTE_OFFSET == 1 << 30


@pytest.mark.parametrize(("page_size", "number"), [(512, 2097153), (4096, 262145), (65536, 16385)])
def test_lock_page_numbers(page_size: int, number: int) -> None:
    """The numbers are those of SQLite's file format document, section 1.4."""
    assert lock_page(page_size) == number


@pytest.mark.parametrize("page_size", [*PAGE_SIZES, 0, 256, 513, 1000, 4095, 131072])
def test_page_sizes_are_sqlites(page_size: int) -> None:
    """A page size is legal when SQLite itself takes it."""
    connection = apsw.Connection(":memory:")
    try:
        connection.execute(f"PRAGMA page_size={page_size}")
        connection.execute("CREATE TABLE t(x)")
        taken = connection.execute("PRAGMA page_size").get == page_size
    finally:
        connection.close()
    assert is_page_size(page_size) == taken == (page_size in PAGE_SIZES)


def test_page_size_bounds() -> None:
    """The smallest and largest page size are legal, and nothing beyond, nor any negative number."""
    assert is_page_size(MIN_PAGE_SIZE)
    assert is_page_size(MAX_PAGE_SIZE)
    assert not any(map(is_page_size, (MIN_PAGE_SIZE // 2, MAX_PAGE_SIZE * 2, -512, -4096)))


def test_positions_are_values() -> None:
    """Positions compare by what they say, can be keys, and cannot be changed."""
    position = Position(epoch=Epoch(1), txid=TXID(2), checksum=3, pages=4)
    assert position == Position(epoch=Epoch(1), txid=TXID(2), checksum=3, pages=4)
    assert len({position, dataclasses.replace(position), dataclasses.replace(position, txid=TXID(3))}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        position.txid = TXID(9)  # type: ignore[misc]


def test_no_wal_is_no_place_in_a_wal() -> None:
    """The position without a WAL differs from the front of every WAL."""
    assert WALPosition(salts=bytes(8), frame=0, frame_checksum=b"") != NO_WAL
