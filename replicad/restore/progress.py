"""How a restore tells how far it is: a bar on a terminal, log lines elsewhere, nothing in a test."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told on the event loop; must return at once."""

    def started(self, total_bytes: int) -> None:
        """A way to the target was found; at most this many bytes are fetched. Comes again if the plan changes."""
        ...

    def advanced(self, n_bytes: int) -> None:
        """So many of these bytes were fetched, or turned out not to be needed."""
        ...

    def finished(self) -> None:
        """Nothing more will come, whether the restore worked or not."""
        ...


class Silent:
    """Nobody watches."""

    def started(self, total_bytes: int) -> None:
        """Ignore it."""

    def advanced(self, n_bytes: int) -> None:
        """Ignore it."""

    def finished(self) -> None:
        """Ignore it."""
