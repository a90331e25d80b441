from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from replicad.config import load
from replicad.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

DROP = "SELECT 'a;b' = 'a;b' -- not the end;\n, 1;"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT 1", ["SELECT 1\n;"]),
        ("SELECT 1; SELECT 2;", ["SELECT 1;", "SELECT 2;"]),
        (DROP, [DROP]),
        ("SELECT 1 -- as always", ["SELECT 1 -- as always\n;"]),
    ],
)
def test_statements_are_told_apart_as_sqlite_does(text: str, expected: list[str]) -> None:
    """A semicolon in a text or a comment ends no statement, and the last one may go without."""
    assert load(flags={"assertions": text}, environ={}, required=()).settings.assertions == tuple(expected)


def test_a_list_in_the_file(tmp_path: Path) -> None:
    """In a file assertions are a list, each of one statement or several; a single text will do."""
    file = tmp_path / "replicad.yml"
    file.write_text("assertions:\n  - SELECT count(*) > 0 FROM users  # people\n  - |\n    SELECT 1; SELECT 2\n")
    found = load(flags={"config": str(file)}, environ={}, required=()).settings.assertions
    assert found is not None
    assert [one.strip("\n; ") for one in found] == ["SELECT count(*) > 0 FROM users", "SELECT 1", "SELECT 2"]
    file.write_text("assertions: SELECT 1\n")
    found = load(flags={"config": str(file)}, environ={}, required=()).settings.assertions
    assert found == ("SELECT 1\n;",)


@pytest.mark.parametrize(
    "text", ["assertions: [[SELECT 1]]", "assertions: ['']", "assertions: {a: SELECT 1}", "assertions: ';'"]
)
def test_what_is_no_statement(tmp_path: Path, text: str) -> None:
    """What is neither a statement nor a list of them is an error that names the key."""
    file = tmp_path / "replicad.yml"
    file.write_text(text + "\n")
    with pytest.raises(UsageError, match="assertions"):
        load(flags={"config": str(file)}, environ={}, required=())


def test_a_statement_that_does_not_end() -> None:
    """A text that is not closed is no statement."""
    with pytest.raises(UsageError, match="assertions"):
        load(flags={"assertions": "SELECT 'a"}, environ={}, required=())
