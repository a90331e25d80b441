"""Files without a name: nothing is left of them, however the process ends."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def open_nameless(folder: Path) -> int:
    """Return a descriptor on a new file on the folder's disk, for reading and writing; blocks.

    Raises:
        OSError: it cannot be made.
    """
    import tempfile  # noqa: PLC0415 - few restores need it

    with tempfile.TemporaryFile(dir=folder) as file:
        return os.dup(file.fileno())
