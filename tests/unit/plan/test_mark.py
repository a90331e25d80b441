"""Preserve marks as documents."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.errors import Damaged, NewerFormat
from replicad.layout import MarkKey, parse_mark
from replicad.plan.inventory import kind_of
from replicad.plan.mark import Mark, decode_mark, encode_mark
from replicad.position import TXID, Epoch

FORMAT = Path(__file__).parents[3] / "docs" / "format.md"

marks = st.builds(
    Mark,
    txid=st.integers(0, 2**63 - 1),
    epoch=st.integers(1, 2**32 - 1),
    until_ms=st.integers(0, 2**53 - 1),
    made_ms=st.integers(0, 2**53 - 1),
    reason=st.text(),
)


@given(marks)
def test_marks_come_back(mark: Mark) -> None:
    """A mark is read as it was written, and its key says what it keeps, and until when."""
    assert decode_mark(encode_mark(mark), what="mark") == mark
    assert parse_mark(str(mark.key)) == mark.key
    assert mark.key == MarkKey(txid=TXID(mark.txid), epoch=Epoch(mark.epoch), until_ms=mark.until_ms)


def test_what_is_no_mark() -> None:
    """Other bytes are damage, and a later version is said to be one."""
    with pytest.raises(Damaged):
        decode_mark(b"{}", what="mark")
    with pytest.raises(NewerFormat):
        decode_mark(b'{"version": 2}', what="mark")


def test_the_format_names_every_field() -> None:
    """The table in docs/format.md has the fields of the document, in their order."""
    section = FORMAT.read_text(encoding="utf-8").partition("### Mark\n")[2].partition("\n## ")[0]
    assert tuple(re.findall(r"^\| `([a-z_]+)` \|", section, re.MULTILINE)) == Mark.__struct_fields__


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("claims/00000001.json", "record"),
        ("epochs/00000001/start.json", "record"),
        ("epochs/00000001/end.json", "record"),
        ("handover/00000001.json", "note"),
        ("handover/00000001.ack.json", "note"),
        ("epochs/00000001/log/0000000000000001-0000000000000002-3.seg", "segment"),
        ("epochs/00000001/snapshots/0000000000000001-3.json", "snapshot"),
        (f"epochs/00000001/chunks/{'0' * 64}.zst", "chunk"),
        ("preserve/0000000000000001-00000001-3.json", "mark"),
        ("preserve/notes.txt", "foreign"),
        ("probes/clock", "probe"),
    ],
)
def test_kinds(key: str, kind: str) -> None:
    """Every object is of one kind, by its key."""
    assert kind_of(key) == kind
