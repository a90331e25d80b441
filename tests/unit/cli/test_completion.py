from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Command


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(replicad: Command, shell: str) -> None:
    """A completion script that calls replicad back is printed for each shell."""
    ended = replicad("completion", shell)
    assert ended.code == 0
    assert "_REPLICAD_COMPLETE" in ended.out
    assert json.loads(replicad("completion", shell, "--json").out)["shell"] == shell


def test_bash_accepts_its_script(replicad: Command) -> None:
    """Bash finds no error in the script."""
    script = replicad("completion", "bash").out
    subprocess.run(["bash", "-n"], input=script, text=True, check=True, timeout=30)


@pytest.mark.parametrize(
    ("words", "word", "expected"),
    [
        ("replicad re", "1", {"restore"}),
        ("replicad run --wal ", "3", {"convert", "keep"}),
        ("replicad completion ", "2", {"bash", "zsh", "fish"}),
        ("replicad restore --integrity qu", "3", {"quick"}),
    ],
)
def test_words_are_completed(program: Command, words: str, word: str, expected: set[str]) -> None:
    """The program completes commands, and the values of choices."""
    ended = program(_REPLICAD_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=word)
    assert {line.partition(",")[2] for line in ended.out.splitlines()} == expected
