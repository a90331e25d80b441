"""docs/format.md is the format: its tables of encrypted objects and the code say the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from replicad.encryption import keyring, sealing, sizes
from replicad.encryption.keys import MAX_KEYS

if TYPE_CHECKING:
    from struct import Struct

DOCUMENT = (Path(__file__).parents[3] / "docs" / "format.md").read_text()


def section(heading: str) -> str:
    """Return what stands under a heading."""
    return DOCUMENT.partition(f"\n### {heading}\n")[2].partition("\n#")[0]


@pytest.mark.parametrize(
    ("heading", "shape", "magic"),
    [("Encrypted object", sealing._HEADER, sizes.MAGIC), ("Keyring", keyring._HEAD, keyring.MAGIC)],
)
def test_offset_tables(heading: str, shape: Struct, magic: bytes) -> None:
    """Offsets, sizes and magics in the document are those of the code."""
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (.*) \|$", section(heading), re.MULTILINE)
    kinds = re.findall(r"(\d*)([A-Za-z])", shape.format)
    expected = [int(count) if kind == "s" else 4 for count, kind in kinds]
    assert [int(size) for _, size, _ in rows] == expected
    assert [int(offset) for offset, _, _ in rows] == [sum(expected[:number]) for number in range(len(expected))]
    assert magic.hex(" ") in rows[0][2]
    assert "version: 1" in rows[1][2]
    assert sealing.VERSION == keyring.VERSION == 1


def test_numbers() -> None:
    """So are the sizes of header, pieces and tags, and the most keys."""
    text = section("Encrypted object")
    assert f"pieces of {sizes.PIECE_BYTES} bytes" in text
    assert f"tag of {sizes.TAG_BYTES} bytes" in text
    assert f"begins at {sizes.HEADER_BYTES} + {sizes.SEALED_PIECE_BYTES} i" in text
    assert f"1 to {MAX_KEYS}" in section("Keyring")
    assert sealing._HEADER.size == sizes.HEADER_BYTES
