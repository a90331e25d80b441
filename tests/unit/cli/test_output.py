from __future__ import annotations

from replicad.cli.output import columns, outline, size


def test_columns_are_aligned() -> None:
    """Each column is as wide as its widest cell; numbers can stand to the right; nothing trails."""
    assert columns(("NAME", "N"), [("a", "1"), ("long name", "100")], right=[1]) == (
        "NAME         N\na            1\nlong name  100"
    )
    assert columns(("A", "B"), []) == "A  B"


def test_sizes_for_people() -> None:
    """A size is shown in the largest unit that keeps it above one."""
    assert [size(0), size(1023), size(1536), size(5 << 30), size(1 << 52)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "5.0 GiB",
        "4096.0 TiB",
    ]


def test_outline() -> None:
    """Nested values are indented, lists of mappings are a block each, nothing is shown as a dash."""
    text = outline(
        {"ready": True, "databases": [{"name": "a", "at": None}, {"name": "b", "tags": [1, 2]}], "x": {"y": 1}}
    )
    assert text == ("ready: yes\ndatabases:\n  name: a\n  at: -\ndatabases:\n  name: b\n  tags: 1, 2\nx:\n  y: 1")
