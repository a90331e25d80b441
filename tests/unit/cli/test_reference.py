from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from replicad import errors
from replicad.cli.main import COMMANDS
from replicad.cli.reference import documents
from replicad.config import SETTINGS
from replicad.errors import ReplicadError

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize("name", ["configuration.md", "cli.md", "metrics.md"])
def test_the_documentation_is_up_to_date(name: str) -> None:
    """The file in docs/ is what `make docs` writes now."""
    assert (DOCS / name).read_text(encoding="utf-8") == documents()[name], "run `make docs`"


def test_every_setting_and_command_is_documented() -> None:
    """Each setting has its heading, flag and variable, each command its heading and examples."""
    found = documents()
    for setting in SETTINGS:
        assert f"### `{setting.name}`\n" in found["configuration.md"]
        assert f"`{setting.variable}`" in found["configuration.md"]
        assert setting.flag is None or f"`{setting.flag}`" in found["configuration.md"]
    for name in COMMANDS:
        assert f"## `replicad {name}`\n" in found["cli.md"]


def test_every_exit_code_is_documented() -> None:
    """Each error's exit code stands in the table of docs/cli.md."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ReplicadError)]
    assert len(kinds) > 20
    for kind in kinds:
        assert f"| {kind.exit_code} | " in documents()["cli.md"], kind


def test_what_is_written_survives_markdown() -> None:
    """No text outside of code holds what Markdown takes for a tag."""
    for text in documents().values():
        prose = re.sub(r"```.*?```|`[^`]*`|<!--.*?-->", "", text, flags=re.DOTALL)
        assert re.search(r"<[A-Za-z/]", prose) is None


def test_the_files_are_written(tmp_path: Path) -> None:
    """The module writes the files below the folder it is given."""
    subprocess.run([sys.executable, "-m", "replicad.cli.reference", str(tmp_path)], check=True, timeout=60)
    assert {file.name: file.read_text(encoding="utf-8") for file in tmp_path.iterdir()} == documents()
