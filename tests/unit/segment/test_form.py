"""docs/format.md is the format: these tests hold its tables and the code together."""

from __future__ import annotations

import re
from pathlib import Path
from struct import Struct

import msgspec
import pytest

from replicad.ownership.records import Claim, EpochEnd, EpochStart
from replicad.segment import form, header, rollup
from replicad.snapshot import Manifest

DOCUMENT = (Path(__file__).parents[3] / "docs" / "format.md").read_text()


def _table(heading: str) -> list[list[str]]:
    """Return the rows under a heading, without the two that begin its first table."""
    match = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert match, f"docs/format.md has no heading {heading!r}"
    rows = [line.strip() for line in match[1].splitlines() if line.strip().startswith("|")]
    return [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in rows[2:]]


def _field_sizes(shape: Struct) -> list[int]:
    return [
        int(count) if kind == "s" else {"Q": 8, "I": 4, "H": 2}[kind]
        for count, kind in re.findall(r"(\d*)([A-Za-z])", shape.format)
    ]


@pytest.mark.parametrize(
    ("heading", "shape"),
    [
        ("Head", form.HEAD),
        ("Transaction record", form.TRANSACTION),
        ("Page number", form.PGNO),
        ("Block record", form.BLOCK),
        ("Trailer", form.TRAILER),
        ("Trailer of version 1", form.TRAILER_1),
        ("Directory record", rollup.MEMBER),
        ("Trailer of a roll-up", rollup.ROLLUP_TRAILER),
    ],
)
def test_offset_tables(heading: str, shape: Struct) -> None:
    """Offsets and sizes in the document are those of the code, field by field."""
    rows = [(int(row[0]), int(row[1])) for row in _table(heading) if row[0].isdigit()]
    sizes = _field_sizes(shape)
    assert [size for _, size in rows] == sizes
    assert [offset for offset, _ in rows] == [sum(sizes[:number]) for number in range(len(sizes))]
    assert sum(sizes) == shape.size
    assert shape.format.startswith("<")


def test_constants() -> None:
    """Every constant in the document has that value in the code, and every limit and offset of the code is there."""
    told = {row[0]: row[1] for row in _table("Constants")}
    for name, value in told.items():
        constant = getattr(form, name)
        assert value == (constant.hex(" ") if isinstance(constant, bytes) else str(constant)), name
    kept = {name for name in vars(form) if name.isupper() and not isinstance(getattr(form, name), Struct)}
    assert kept - set(told) == {"HEAD_BYTES_HINT"}  # advice to readers, no part of the format


def test_constants_of_roll_ups() -> None:
    """Every constant of roll-ups in the document has that value in the code, and none is missing."""
    told = {row[0]: row[1] for row in _table("Constants of roll-ups")}
    constants = {name: constant for name, constant in vars(rollup).items() if name in told}
    assert {name: one.hex(" ") if isinstance(one, bytes) else str(one) for name, one in constants.items()} == told
    own = {"ROLLUP_VERSION", "ROLLUP_HEAD_MAGIC", "ROLLUP_TRAILER_MAGIC", "MAX_MEMBERS"}
    assert own == set(told)


def test_hash_offsets() -> None:
    """The offsets at which hashes begin are those of their rows."""
    offsets = {row[2].split(" ")[0]: int(row[0]) for row in _table("Trailer of version 1")}
    assert offsets["xxh3_128"] == form.OBJECT_HASH_OFFSET
    assert {int(row[0]) for row in _table("Trailer of version 1") if row[2].startswith("xxh3_64 of the trailer")} == {
        form.TRAILER_HASH_OFFSET
    }


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        ("Version 1", header._StoredHeader),
        ("Manifest", Manifest),
        ("Claim", Claim),
        ("EpochStart", EpochStart),
        ("EpochEnd", EpochEnd),
    ],
)
def test_json_tables(heading: str, kind: type[msgspec.Struct]) -> None:
    """The fields of each JSON object are in the document, in the order in which they are written."""
    told = [row[0] for row in _table(heading) if re.fullmatch("[a-z_]+", row[0]) and row[0] != "version"]
    assert told == [name for name in kind.__struct_fields__ if name != "version"]
    assert ("version" in kind.__struct_fields__) == any(row[0] == "version" for row in _table(heading) if len(row) > 2)


def test_ranges_of_json_numbers() -> None:
    """The upper bounds in the document are those that the code enforces."""
    schema = msgspec.json.schema(EpochStart)["$defs"]["EpochStart"]["properties"]
    assert schema["epoch"] == {"type": "integer", "minimum": 1, "maximum": 2**32 - 1}
    assert schema["parent_txid"] == {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
    assert schema["pages"] == {"type": "integer", "minimum": 0, "maximum": 2**32 - 2}
    assert (schema["database_id"]["minLength"], schema["database_id"]["maxLength"]) == (1, 256)
