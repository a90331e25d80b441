"""Which images of page 1 may stand in the database file, to notice a file that was written to past SQLite.

`cp backup.db app.db` keeps the inode. Page 1 has the size, the free list and the schema; another database's is another.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_LOOKS = 3
_LOOK_AGAIN_SECONDS = 0.005
_MOST = 10_000  # hashes; a WAL that is never copied as a whole has ever more of them


class FirstPages:
    """Hashes of page 1: of the state that is in the file as a whole, and of every commit since."""

    def __init__(self) -> None:
        self._possible: set[int] | None = None  # None: not known, anything may stand there

    def settle(self, image_hash: int) -> None:
        """Note that every frame was copied into the file, and that this is the page 1 of the last of them."""
        if self._possible is None or len(self._possible) > 1 or image_hash not in self._possible:
            self._possible = {image_hash}

    def commit(self, image_hash: int) -> None:
        """Note the page 1 of a commit, which a checkpoint may copy from now on."""
        if self._possible is not None:
            self._possible.add(image_hash)
            if len(self._possible) > _MOST:
                self.forget()

    def forget(self) -> None:
        """Note that frames may have been copied that nobody has read."""
        self._possible = None

    def are_seen_by(self, look: Callable[[], int]) -> bool:
        """Return whether a look at the file finds one of them; one alone may see a page that is half copied."""
        for _ in range(_LOOKS):
            if self.allow(look()):
                return True
            time.sleep(_LOOK_AGAIN_SECONDS)
        return False

    def allow(self, image_hash: int) -> bool:
        """Return whether this page 1 may stand in the file."""
        return self._possible is None or image_hash in self._possible
