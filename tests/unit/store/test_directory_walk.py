from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from replicad.store.directory_walk import is_key, walk

if TYPE_CHECKING:
    import pytest

# Few letters, so that keys share beginnings; "!" sorts before "/", "~" behind.
_parts = st.text("ab!-.~0", min_size=1, max_size=3).filter(lambda part: part not in {".", ".."})
_keys = st.lists(_parts, min_size=1, max_size=3).map("/".join)
_ends = st.text("ab!-.~0/", max_size=4)


@given(st.lists(_keys, max_size=12), _ends, _ends)
def test_walk_is_a_sorted_listing(wanted: list[str], prefix: str, after: str) -> None:
    """For any set of files, prefix and `after`, the walk yields what sorting all keys and filtering them yields."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        stored = set()
        for key in wanted:
            with contextlib.suppress(FileExistsError, NotADirectoryError, IsADirectoryError):
                (root / key).parent.mkdir(parents=True, exist_ok=True)
                (root / key).write_bytes(key.encode())
                stored.add(key)
        rows = list(walk(root, prefix, after))
    assert [row.key for row in rows] == sorted(key for key in stored if key.startswith(prefix) and key > after)
    assert all(row.size_bytes == len(row.key.encode()) for row in rows)


def test_walk_reads_only_folders_in_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders that cannot hold a key of the range are not opened: a listing of one database reads only its folder."""
    for key in ("app/epochs/1/log/x", "app/epochs/2/log/x", "app2/epochs/1/log/x", "other/x"):
        (tmp_path / key).parent.mkdir(parents=True)
        (tmp_path / key).write_bytes(b"")
    opened: list[str] = []
    scandir = __import__("os").scandir

    def noting(folder: Path) -> object:
        opened.append(str(Path(folder).relative_to(tmp_path)))
        return scandir(folder)

    monkeypatch.setattr("os.scandir", noting)
    assert [row.key for row in walk(tmp_path, "app/epochs/", "app/epochs/1/log/x")] == ["app/epochs/2/log/x"]
    assert opened == [".", "app", "app/epochs", "app/epochs/1", "app/epochs/1/log", "app/epochs/2", "app/epochs/2/log"]


def test_walk_of_what_vanishes(tmp_path: Path) -> None:
    """A folder that is removed during the walk ends it early, without an error."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"")
    rows = walk(tmp_path, "", "")
    assert next(rows).key == "a/file"
    (tmp_path / "b" / "file").unlink()
    (tmp_path / "b").rmdir()
    assert list(rows) == []


@given(st.text())
def test_is_key(text: str) -> None:
    """Whatever counts as a key names a file below the root, and not among the unfinished ones."""
    try:
        accepted = is_key(text)
    except UnicodeEncodeError:
        accepted = False  # half a surrogate pair: no text at all
    if accepted:
        path = Path("/root", text)
        assert path.parts[:2] == ("/", "root")
        assert str(path) == f"/root/{text}"
        assert path.parts[2] != ".unfinished"
