from __future__ import annotations

import ast
import inspect
import re
import string
from pathlib import Path

import pytest

import replicad
from replicad import errors
from replicad.errors import Damaged, ReplicadError, TargetExists

EXIT_CODES = {1, 2, 10, 11, 12, 13, 14, 64, 75}
"""What the program itself ends with; 0 is no error."""

COMMAND_CODES = {126, 127, 143}
"""What a shell would report of the application's command: not executable, not found, stopped by SIGTERM."""

STATUSES = Path(__file__).parents[2] / "docs" / "operations.md"

CLASSES: list[type[ReplicadError]] = [
    kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, ReplicadError)
]

MODULES = sorted(Path(replicad.__file__).parent.rglob("*.py"))


def _fields(kind: type[ReplicadError]) -> dict[str, str]:
    """Return the names in a class's message template, each with its format."""
    parts = string.Formatter().parse(inspect.cleandoc(kind.__doc__ or ""))
    return {name: form or "" for _, name, form, _ in parts if name is not None}


@pytest.mark.parametrize("kind", CLASSES)
def test_docstring_is_the_message(kind: type[ReplicadError]) -> None:
    """The docstring, filled in, is the message: every field appears, on one line, in whole sentences."""
    details: dict[str, object] = {
        name: 7.5 if form.endswith("g") else f"<{name} {{x}}>" for name, form in _fields(kind).items()
    }
    message = str(kind(**details))
    assert details
    for value in details.values():
        assert str(value) in message
    assert "\n" not in message
    assert "  " not in message
    assert message[0] in "<" + string.ascii_uppercase
    assert message.endswith((".", ">"))


@pytest.mark.parametrize("kind", CLASSES)
def test_details_are_kept(kind: type[ReplicadError]) -> None:
    """What the message was made of can be read from the error, for logs and for --json."""
    details: dict[str, object] = dict.fromkeys(_fields(kind), 7.5)
    assert kind(**details).details == details


@pytest.mark.parametrize("kind", CLASSES)
def test_exit_codes(kind: type[ReplicadError]) -> None:
    """Every class ends the program with one of the documented statuses."""
    assert kind.exit_code in EXIT_CODES | COMMAND_CODES


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("ReplicadError", 1),
        ("UsageError", 64),
        ("Damaged", 2),
        ("ProofFailed", 2),
        ("NoBackup", 10),
        ("OwnedByAnother", 11),
        ("WrongKey", 12),
        ("StoreUnreachable", 13),
        ("StoreRefused", 13),
        ("TargetOutsideWindow", 14),
        ("HistoryGap", 14),
        ("FinalFlushFailed", 75),
    ],
)
def test_what_each_code_stands_for(name: str, code: int) -> None:
    """Each documented status belongs to the class that stands for it; scripts rely on the numbers."""
    assert getattr(errors, name).exit_code == code


def test_every_code_is_used_and_documented() -> None:
    """No status is left without a class, and none without its row in docs/operations.md."""
    used = {kind.exit_code for kind in CLASSES}
    assert used >= EXIT_CODES
    assert used <= set(map(int, re.findall(r"^\| (\d+) \|", STATUSES.read_text(), re.MULTILINE)))


@pytest.mark.parametrize("name", ["NoBackup", "StoreUnreachable", "StoreRefused"])
def test_no_backup_is_not_an_unreachable_store(name: str) -> None:
    """'There is no backup' and 'the bucket cannot be reached' are never caught as one another."""
    others = {"NoBackup", "StoreUnreachable", "StoreRefused"} - {name}
    assert not any(issubclass(getattr(errors, name), getattr(errors, other)) for other in others)


def test_a_missing_detail_shows_at_once() -> None:
    """An error raised without a field of its template fails where it is raised, not where it is printed."""
    with pytest.raises(KeyError, match="expected"):
        Damaged(what="x", where="y", found="z")


def test_line_breaks_of_the_source_do_not_show() -> None:
    """A docstring of two lines is a message of one; line breaks in the details are the caller's."""
    assert str(TargetExists(path="/x")) == (
        "/x exists already and was left as it is. Give --force to replace it (the old file is kept until the "
        "new one is proven), or --output with another path."
    )


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(MODULES[0].parent).as_posix())
def test_every_raise_fills_its_template(module: Path) -> None:
    """Wherever one of these errors is made, it is given every field that its message names.

    Seen to fail with `expected=` left out of one `Damaged(...)` in the segment trailer.
    """
    kinds = {kind.__name__: kind for kind in CLASSES}
    for call in ast.walk(ast.parse(module.read_text())):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in kinds:
            given = {keyword.arg for keyword in call.keywords}
            assert not call.args, f"line {call.lineno}: details are given by name"
            if None not in given:  # **details
                assert set(_fields(kinds[call.func.id])) <= given, f"line {call.lineno}: {call.func.id}"
