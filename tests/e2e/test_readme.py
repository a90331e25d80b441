from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support.mentions import ROOT, fenced

LIMIT_SECONDS = 90


@pytest.mark.skipif(shutil.which("zstd") is None, reason="needs the program zstd")
def test_every_shell_block_of_the_readme_runs(tmp_path: Path) -> None:
    """The README's shell blocks, run in order in an empty folder as one reader would, do what they say."""
    blocks = fenced((ROOT / "README.md").read_text(encoding="utf-8"), "sh")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "python3").symlink_to(sys.executable)
    (programs / "replicad").symlink_to(Path(sys.executable).with_name("replicad"))
    folder = tmp_path / "reader"
    folder.mkdir()
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("REPLICAD_")}

    done = subprocess.run(
        ["sh", "-eux", "-c", "\n".join(blocks)],
        cwd=folder,
        # The reader's port 9090 may be taken on the machine that runs the tests.
        env=inherited | {"PATH": f"{programs}:{os.environ['PATH']}", "REPLICAD_HTTP_LISTEN": "off"},
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("visits:")] == ["visits: 1", "visits: 2"]
    assert "(2,)" in lines, "the drill's query"
    assert (folder / "by-hand.db").stat().st_size > 0
    assert not (folder / "drill.db").exists()


def test_the_demonstration_passes() -> None:
    """`make demo`'s program finds no difference, prints every step, and leaves nothing behind."""
    with tempfile.TemporaryDirectory(prefix="rd-") as folder:  # short: a socket's path has at most 107 bytes
        done = subprocess.run(
            [sys.executable, "-m", "bench.demo"],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": folder},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "NOT" not in done.stdout
        assert list(Path(folder).iterdir()) == []
