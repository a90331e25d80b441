"""For protocols that want nothing of a database: a host that has none."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from replicad.position import Epoch


class NoHost:
    """Implements `replicad.replicate.protocol.Host`; whoever asks it for something fails."""

    async def warm(self, epoch: Epoch) -> NoReturn:
        """There is nothing to restore into."""
        raise AssertionError(epoch)

    async def freeze(self) -> NoReturn:
        """There are no writers."""
        raise AssertionError

    async def ship_rest(self, seconds: float) -> NoReturn:
        """There is nothing to ship."""
        raise AssertionError(seconds)

    async def thaw(self, *, ship: bool) -> NoReturn:
        """There are no writers."""
        raise AssertionError(ship)
