from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.errors import Damaged
from replicad.litestream.codecs import Codecs
from replicad.litestream.ltx import LTXDecoder, LTXHeader
from replicad.position import lock_page
from tests.support.ltx_files import encode_ltx

GOLDEN = Path(__file__).parents[2] / "golden" / "litestream"
FILES = sorted(GOLDEN.glob("*/ltx/*/*.ltx"))
SNAPSHOT = max(GOLDEN.glob("v0.5.18/ltx/9/*.ltx"))
FRAMES = min(GOLDEN.glob("ltx-0.5.0/ltx/0/*.ltx"))
CODECS = Codecs()


def decode(raw: bytes, *, step: int = 1 << 20) -> tuple[LTXHeader, dict[int, bytes]]:
    """Return header and pages of a file that is fed in steps of so many bytes."""
    decoder = LTXDecoder(CODECS, what="the file")
    pages: dict[int, bytes] = {}
    for at in range(0, len(raw), step):
        pages |= dict(decoder.feed(raw[at : at + step]))
    return decoder.finish(), pages


def test_the_check_value() -> None:
    """CRC-64/GO-ISO of the usual nine digits is what catalogues of checksums say it is, in one piece or two."""
    assert CODECS.crc64(b"123456789") == 0xB90956C775A41001
    assert CODECS.crc64(b"6789", CODECS.crc64(b"12345")) == 0xB90956C775A41001


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parts[-4]}-{path.parent.name}-{path.stem[-4:]}")
def test_what_litestream_wrote(path: Path) -> None:
    """Every file of every golden replica is read, and every checksum in it holds."""
    header, pages = decode(path.read_bytes())
    first, last = (int(part, 16) for part in path.stem.split("-"))
    assert (header.first, header.last, header.page_size) == (first, last, 512)
    assert pages
    assert header.is_snapshot == (len(pages) == header.pages and first == 1)


@pytest.mark.parametrize("path", [SNAPSHOT, FRAMES], ids=["blocks", "frames"])
def test_bytes_come_in_any_pieces(path: Path) -> None:
    """How the bytes are cut makes no difference."""
    raw = path.read_bytes()
    whole = decode(raw)
    for step in (1, 2, 5, 7, 99, 512):
        assert decode(raw, step=step) == whole


def test_the_snapshot_is_the_database() -> None:
    """The pages of a snapshot in order are the file that was replicated."""
    _, pages = decode(SNAPSHOT.read_bytes())
    assert b"".join(pages[pgno] for pgno in sorted(pages)) == (GOLDEN / "v0.5.18.db").read_bytes()


@pytest.mark.parametrize("path", [SNAPSHOT, FRAMES], ids=["blocks", "frames"])
def test_every_bit_that_is_flipped(path: Path) -> None:
    """A file with one bit flipped, whichever, is damaged, or gives the very same pages."""
    raw = path.read_bytes()
    expected = decode(raw)
    unnoticed = 0
    for at in range(len(raw)):
        spoiled = bytearray(raw)
        spoiled[at] ^= 1 << at % 8
        try:
            assert decode(bytes(spoiled)) == expected
            unnoticed += 1
        except Damaged:
            continue
    assert unnoticed < len(raw) // 20, "only what LZ4 can say in two ways"


@pytest.mark.parametrize("path", [SNAPSHOT, FRAMES], ids=["blocks", "frames"])
def test_every_length_it_can_be_cut_to(path: Path) -> None:
    """A file that is cut, wherever, or that goes on behind its end, is damaged."""
    raw = path.read_bytes()
    for end in range(len(raw)):
        with pytest.raises(Damaged):
            decode(raw[:end])
    with pytest.raises(Damaged):
        decode(raw + b"\0")


@given(st.binary(max_size=400))
def test_what_is_no_ltx_file(raw: bytes) -> None:
    """Any bytes are read, or are damaged: nothing else comes of them."""
    for body in (raw, b"LTX1" + raw):
        with pytest.raises(Damaged):
            decode(body)


@given(
    st.sampled_from([512, 1024, 4096, 65536]),
    st.dictionaries(st.integers(1, 40), st.binary(min_size=1, max_size=16), min_size=1, max_size=8),
    st.integers(1, 3000),
)
def test_any_pages(page_size: int, written: dict[int, bytes], step: int) -> None:
    """What is encoded comes back, whatever the page size."""
    pages = {pgno: (data * page_size)[:page_size] for pgno, data in written.items()}
    raw = encode_ltx(page_size, pages, first=2, last=5, size=40)
    header, found = decode(raw, step=step)
    assert (header.page_size, header.pages, header.first, header.last) == (page_size, 40, 2, 5)
    assert found == pages


def _file(pages: dict[int, bytes], *, first: int = 2, size: int = 9, page_size: int = 512) -> bytes:
    return encode_ltx(page_size, pages, first=first, last=5, size=size)


PAGE = bytes(512)


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (_file({10: PAGE}), "found 10"),
        (_file({1: PAGE, 3: PAGE}, first=1), "page 2 of a snapshot, found page 3"),
        (_file({1: PAGE}, first=1), "none behind page 1"),
        (_file({1: bytes(511)}), "an LZ4 block of one page, found 511 bytes"),
        (_file({1: bytes(513)}), "an LZ4 block of one page"),
        (_file({1: PAGE}, page_size=513), "page size: expected a power of two"),
        (_file({1: PAGE}, first=0), "TXIDs"),
        (_file({lock_page(512): PAGE}, size=3_000_000), "but for the lock page"),
        (b"LTX2" + _file({1: PAGE})[4:], "magic"),
        (_file({1: PAGE})[:4] + struct.pack(">I", 8) + _file({1: PAGE})[8:], "flags"),
    ],
    ids=["beyond", "gap", "short", "less", "more", "page-size", "txid", "lock", "magic", "flags"],
)
def test_what_contradicts_itself(raw: bytes, found: str) -> None:
    """A file whose checksum is right and whose contents are not is damaged too, and it is said where."""
    with pytest.raises(Damaged, match=found):
        decode(raw)


def test_a_snapshot_across_the_lock_page() -> None:
    """Of a database that reaches just behind the lock page, that page is no gap in a snapshot."""
    page_size = 65536
    lock = lock_page(page_size)
    decoder = LTXDecoder(CODECS, what="the file")
    page = bytes(page_size)
    numbers = [*range(1, lock), lock + 1]
    raw = encode_ltx(page_size, dict.fromkeys(numbers, page), first=1, last=1, size=lock + 1)
    assert [pgno for pgno, _ in decoder.feed(raw)] == numbers
    assert decoder.finish().pages == lock + 1
