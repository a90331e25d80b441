"""Where limited verifications of a database on this disk keep how far they have come."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from replicad.document import decoder_of
from replicad.errors import FileUnusable, NoSpace
from replicad.host.files import atomic_write, remove
from replicad.restore.verification.cursor import VERSION, Cursor

if TYPE_CHECKING:
    from collections.abc import Callable


class CursorFile:
    """A file beside the database; where there is no database nothing is kept. All methods block."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._path = Path(f"{database}-replicad-verify")

    def read(self) -> Cursor | None:
        """Return how far the last run came; None: the next one begins from the front."""
        try:
            cursor = decoder_of(Cursor).decode(self._path.read_bytes())
        except (OSError, msgspec.DecodeError):  # begin from the front: nothing is lost but time
            return None
        return cursor if cursor.version == VERSION else None

    def write(self, cursor: Cursor | None) -> None:
        """Keep how far this run came; None: the pass is over."""
        if cursor is None:
            _best(lambda: remove(self._path))
        elif self._database.exists():
            _best(lambda: atomic_write(self._path, msgspec.json.encode(cursor), durable=False))


def _best(write: Callable[[], None]) -> None:
    """Write where that is possible; the token that is printed says the same."""
    try:
        write()
    except (NoSpace, FileUnusable):
        return
