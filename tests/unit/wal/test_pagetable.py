from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from replicad.wal import PageTable, page_hash

PAGE = 512
COMMITS = st.lists(
    st.tuples(st.dictionaries(st.integers(1, 12), st.integers(0, 255), max_size=6), st.integers(1, 12)),
    min_size=1,
    max_size=12,
)


@given(COMMITS)
def test_the_checksum_is_that_of_the_pages(commits: list[tuple[dict[int, int], int]]) -> None:
    """After any commits, growing and shrinking, the checksum is the XOR of the hashes of the pages there are."""
    table, pages = PageTable(PAGE), dict[int, bytes]()
    for written, size in commits:
        table.write(list(written), [bytes([byte]) * PAGE for byte in written.values()])
        pages |= {pgno: bytes([byte]) * PAGE for pgno, byte in written.items()}
        pages = {pgno: pages.get(pgno, bytes(PAGE)) for pgno in range(1, size + 1)}  # what was skipped reads as zeros
        expected = 0
        for pgno, image in pages.items():
            expected ^= page_hash(image, pgno)
        assert (table.commit(size), table.pages) == (expected, size)
        assert table.differing(1, [pages[pgno] for pgno in range(1, size + 1)]) == []


def test_a_copy_is_independent() -> None:
    """Writing into a copy leaves the table it was made from as it was."""
    table = PageTable(PAGE)
    table.write([1], [b"a" * PAGE])
    before = table.commit(1)
    other = table.copy()
    other.write([1], [b"b" * PAGE])
    assert (other.commit(1) != before, table.checksum) == (True, before)


@given(COMMITS)
def test_transactions_at_once(commits: list[tuple[dict[int, int], int]]) -> None:
    """Whole transactions in one call make the same states as one call for each, growing and shrinking."""
    one_by_one, at_once = PageTable(PAGE), PageTable(PAGE)
    pgnos, images, commit_pages = list[int](), list[bytes](), list[int]()
    expected, firsts = list[int](), list[int]()
    for written, size in commits:
        pages = written or {1: 0}  # a commit has a frame
        frames = [bytes([byte]) * PAGE for byte in pages.values()]
        one_by_one.write(list(pages), frames)
        expected.append(one_by_one.commit(size))
        if 1 in pages:
            firsts.append(one_by_one.first_hash)
        pgnos += pages
        images += frames
        commit_pages += [0] * (len(frames) - 1) + [size]
    assert at_once.write_transactions(pgnos, images, commit_pages) == (expected, firsts)
    assert (at_once.checksum, at_once.pages, at_once.first_hash) == (
        one_by_one.checksum,
        one_by_one.pages,
        one_by_one.first_hash,
    )
